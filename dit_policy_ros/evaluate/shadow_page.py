"""What the executor would have made of a policy's chunks, as sections of a replay's page."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np

from dit_policy_ros.data.scratch import thinned
from dit_policy_ros.evaluate import plots, replay_plots
from dit_policy_ros.evaluate.document import panels
from dit_policy_ros.evaluate.replay_report import ReplayReport
from dit_policy_ros.evaluate.smoothness import SEAM_JUMP, SEAM_JUMP_MEANS, STEP_BACK_MEANS
from dit_policy_ros.evaluate.statistics import percentiles
from dit_policy_ros.evaluate.svg import MOST_POINTS

_LISTED = 60


def shadow_sections(report: ReplayReport) -> str:
    """Returns interventions, motion and smoothness of a replay in shadow mode."""
    return _interventions(report) + _motion(report)


def _interventions(report: ReplayReport) -> str:
    result = report.result
    timeline = replay_plots.intervention_timeline(result.interventions, float(result.times_s[-1]))
    rows = "".join(
        f"<dt>{entry.time_s:.2f} s</dt><dd>{escape(entry.kind)}: {escape(entry.text)}</dd>"
        for entry in result.interventions[:_LISTED]
    )
    more = len(result.interventions) - _LISTED
    rest = f'<p class="muted">{more} more are in interventions.csv.</p>' if more > 0 else ""
    return (
        f"<h2>What the executor would have done</h2>{timeline}{_limits(report)}"
        '<div class="scroll" style="margin-top:12px;padding:12px 16px">'
        f"<dl>{rows or '<dd>nothing</dd>'}</dl>{rest}</div>"
        '<p class="muted">Numbers in brackets: waypoints of the chunk outside the limit, and pieces of the motion '
        "between them. The limiter slows them down or clamps them; a refused chunk is not executed at all.</p>"
    )


def _limits(report: ReplayReport) -> str:
    """How often each joint met each limit."""
    result = report.result
    head = "".join(f'<th class="number">{escape(kind)}</th>' for kind in result.hits)
    rows = "".join(
        f"<tr><td>{escape(joint)}</td>"
        + "".join(f'<td class="number">{counts[j]}</td>' for counts in result.hits.values())
        + "</tr>"
        for j, joint in enumerate(result.joint_names)
        if any(counts[j] for counts in result.hits.values())
    )
    if not rows:
        return "<p>No joint met a limit.</p>"
    return (
        f'<div class="scroll tall" style="margin-top:12px"><table><thead><tr><th>joint</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


@dataclass(frozen=True)
class _Motion:
    """Every n-th control period, as far as a panel can show it."""

    joint_names: tuple[str, ...]
    times_s: np.ndarray
    commanded: np.ndarray
    measured: np.ndarray


def _motion(report: ReplayReport) -> str:
    result = report.result
    step = max(1, -(-len(result.times_s) // MOST_POINTS))
    shown = (thinned(values, step) for values in (result.times_s, result.commanded, result.measured))
    motion = _Motion(result.joint_names, *shown)
    joints = panels({name: plots.joint_panel(motion, k) for k, name in enumerate(result.joint_names)})
    return (
        '<h2>What it would have sent</h2><div class="legend"><span><i class="rule commanded"></i>would have been '
        'commanded</span><span><i class="rule measured"></i>measured in the recording</span>'
        "<span>[rad], or 0 to 1 for a gripper, over seconds</span></div>"
        f'<div class="joints">{joints}</div>{_smoothness(report)}'
    )


def _smoothness(report: ReplayReport) -> str:
    """How chunks follow one another, and how old they are."""
    result = report.result
    figures = result.seams.summary()
    rows = [
        (f"{SEAM_JUMP} [rad]", figures["seam_position"]),
        ("change of velocity there [rad/s]", figures["seam_velocity"]),
        ("largest motion between two actions of a chunk [rad]", figures["chunk_step"]),
        ("mean second difference within a chunk [rad]", figures["chunk_second_difference"]),
        ("from an observation to its chunk taking over [s]", figures["delay_consumed_s"]),
        ("age of the context [s]", percentiles(result.context_ages_s)),
    ]
    cells = "".join(
        f'<tr><td class="wide">{name}</td>'
        + "".join(f'<td class="number">{values.get(at, float("nan")):.4f}</td>' for at in ("p50", "p95", "p99", "p100"))
        + "</tr>"
        for name, values in rows
        if values
    )
    backwards = figures["seams_backwards"]
    share = "" if backwards is None else f" {STEP_BACK_MEANS} {100 * backwards:.1f} % of the seams do."
    return (
        '<h2>Smoothness and latency</h2><div class="scroll tall"><table><thead><tr><th>smaller is better</th>'
        '<th class="number">median</th><th class="number">95 %</th><th class="number">99 %</th>'
        f'<th class="number">largest</th></tr></thead><tbody>{cells}</tbody></table></div>'
        f'<p class="muted">Over every joint of {len(result.seams.array("position"))} chunks that took over. '
        f"{SEAM_JUMP_MEANS}{share} Delays are those given on the command line, not measured.</p>"
    )
