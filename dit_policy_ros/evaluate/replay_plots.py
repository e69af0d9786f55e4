"""The pictures of a replay's page, as SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from dit_policy_ros.evaluate.horizon_errors import METHODS, ErrorSummary, Moment
from dit_policy_ros.evaluate.replay import Intervention, ReplayResult
from dit_policy_ros.evaluate.svg import Chart

_LEAST_SPAN = 0.2
INTERVENTION_KINDS = ("position limit", "speed limit", "refused", "state")


def horizon_chart(errors: ErrorSummary, step_s: float, joint: int | None = None, name: str = "") -> str:
    """Returns the error of all methods over the horizon, of one joint or of their mean."""
    values = errors.mean.mean(axis=2) if joint is None else errors.mean[:, :, joint]
    known = values[np.isfinite(values)]
    high = max(float(known.max(initial=0.0)) * 1.12, 1e-3)
    times_s = step_s * np.arange(values.shape[1])
    size = (520, 220, False) if joint is None else (165, 120, True)
    chart = Chart(name or "Mean error over the horizon", (0.0, max(float(times_s[-1]), 1e-3)), (0.0, high), *size)
    if joint is None:
        chart.axes("time into the chunk [s]")
    else:
        chart.axes(x_ticks=3, y_ticks=3)
    for m in reversed(range(len(METHODS))):
        chart.line(times_s, values[m], METHODS[m])
    return chart.render()


def chunk_chart(errors: ErrorSummary, start_ns: int, end_s: float) -> str:
    """Returns the mean error of every chunk over time, of the policy and of holding still."""
    times_s = (errors.chunk_ns - start_ns) * 1e-9
    high = max(float(errors.per_chunk[:, :2].max(initial=0.0)) * 1.12, 1e-3)
    chart = Chart("Mean error of every chunk", (0.0, max(end_s, 1e-3)), (0.0, high), 520, 220)
    chart.axes("time of the observation [s]")
    chart.line(times_s, errors.per_chunk[:, 1], "hold")
    chart.line(times_s, errors.per_chunk[:, 0], "policy")
    return chart.render()


def moment_panel(moment: Moment, result: ReplayResult, joint: int) -> str:
    """Returns what was predicted, commanded and measured of one joint around one chunk."""
    before_s = (moment.observation_ns - result.start_ns) * 1e-9
    since_s = (moment.times_ns - moment.observation_ns) * 1e-9
    past = (result.times_s >= before_s - 0.5) & (result.times_s <= before_s + since_s[-1])
    measured = result.measured[past, joint]
    values = np.concatenate([moment.predicted[:, joint], moment.recorded[:, joint], measured])
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    slack = max(0.06 * (high - low), (_LEAST_SPAN - (high - low)) / 2)
    name = f"{result.joint_names[joint]}: predicted, commanded and measured"
    chart = Chart(name, (-0.5, float(since_s[-1])), (low - slack, high + slack), 260, 150, bare=True)
    chart.axes(x_ticks=4, y_ticks=3)
    chart.verticals([0.0], "event")
    chart.line(result.times_s[past] - before_s, measured, "was")
    chart.line(since_s, moment.recorded[:, joint], "recorded")
    chart.line(since_s, moment.predicted[:, joint], "policy")
    return chart.render()


def intervention_timeline(interventions: Sequence[Intervention], end_s: float) -> str:
    """Returns a row per kind, with a mark at each instant that tells on hover what it was."""
    left, right, row = 110.0, 1050.0, 26
    parts = []
    for k, kind in enumerate(INTERVENTION_KINDS):
        top = 4 + k * row
        found = [entry for entry in interventions if entry.kind == kind]
        parts.append(
            f'<text class="label" x="{left - 10}" y="{top + 13}" text-anchor="end">{kind}: {len(found)}</text>'
        )
        parts.append(f'<rect class="track" x="{left}" y="{top}" width="{right - left}" height="{row - 8}" rx="3"/>')
        for entry in found:
            x = left + (right - left) * min(entry.time_s / max(end_s, 1e-3), 1.0)
            colour = "present" if kind == "state" else "fill-over"
            tip = escape(f"{entry.time_s:.2f} s: {entry.text}")
            parts.append(
                f'<rect class="{colour}" x="{x - 1:.1f}" y="{top}" width="2.4" height="{row - 8}">'
                f"<title>{tip}</title></rect>"
            )
    height = 4 + len(INTERVENTION_KINDS) * row + 16
    for k in range(6):
        x, anchor = left + (right - left) * k / 5, "end" if k == 5 else "middle"
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{height - 4}" text-anchor="{anchor}">{end_s * k / 5:.2f} s</text>'
        )
    title = "Interventions over time"
    return (
        f'<svg viewBox="0 0 1060 {height}" role="img" aria-label="{title}"><title>{title}</title>{"".join(parts)}</svg>'
    )
