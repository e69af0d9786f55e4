"""One HTML page of a replay: errors beside baselines, the worst moments with their images, and interventions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from dit_policy_ros.data.bag_reader import Episode
from dit_policy_ros.data.thumbnails import small_jpeg
from dit_policy_ros.errors import BagError
from dit_policy_ros.evaluate import replay_plots
from dit_policy_ros.evaluate.document import document, jpeg_source, panels, write_whole
from dit_policy_ros.evaluate.horizon_errors import METHODS, Moment
from dit_policy_ros.evaluate.paired import block_difference
from dit_policy_ros.evaluate.projection import ForwardKinematics, overlay, paths_in_image
from dit_policy_ros.evaluate.replay import OPEN_LOOP, SHADOW
from dit_policy_ros.evaluate.replay_report import ReplayReport
from dit_policy_ros.evaluate.shadow_page import shadow_sections
from dit_policy_ros.evaluate.suspicion import FAR, LEAST_ERROR
from dit_policy_ros.robot import RobotSpec

SHOWN_MOMENTS = 4
_JOINTS_OF_A_MOMENT = 4
_FEW_BLOCKS = 20
_UNIT = "[rad; gripper 0 to 1]"
_IMAGE_WIDTH = 320
_MEANINGS = {
    "policy": "the policy",
    "hold": "stay where measured",
    "repeat": "repeat the last known command",
    "linear": "go on from the last two",
}

Images = Mapping[int, Mapping[str, bytes]]
"""Observation stamp [ns] to camera name to JPEG."""


@dataclass(frozen=True)
class View:
    """What it takes to draw the paths of the hands into images."""

    robot: RobotSpec
    kinematics: ForwardKinematics


def write_replay_page(report: ReplayReport, images: Images, directory: Path, view: View | None = None) -> Path:
    """Writes ``index.html`` and returns its path."""
    return write_whole(directory / "index.html", render_replay(report, images, view))


def moment_images(episode: Episode, report: ReplayReport, cameras: Sequence[str]) -> Images:
    """Returns what each camera saw at the worst moments; only these images are decoded.

    Raises:
        BagError: a camera is missing, or an image cannot be decoded, in a bag that must be whole.
    """
    stamps_ns = sorted(moment.observation_ns for moment in report.result.errors.moments[:SHOWN_MOMENTS])
    found: dict[int, dict[str, bytes]] = {stamp_ns: {} for stamp_ns in stamps_ns}
    for camera in cameras:
        waiting = list(stamps_ns)
        wanted = []
        newest = None
        for stamp_ns, decode in episode.encoded_frames(camera):
            while waiting and stamp_ns > waiting[0] and newest is not None:
                wanted.append((waiting.pop(0), newest))
            newest = decode
        wanted += [(instant_ns, newest) for instant_ns in waiting]
        for instant_ns, decode in wanted:
            try:
                found[instant_ns][camera] = small_jpeg(decode(), _IMAGE_WIDTH)
            except BagError as problem:
                episode.bag.lose(episode.image_topic(camera)[0], instant_ns, problem)
    return found


def render_replay(report: ReplayReport, images: Images, view: View | None = None) -> str:
    """Returns the page's text; with a view, calibrated cameras show where the hands were to go."""
    result = report.result
    shown = result.errors.moments[:SHOWN_MOMENTS]
    sections = (
        _head(report),
        _alarm(report),
        _cards(report),
        _curves(report),
        "<h2>Worst moments</h2>" + _moment_legend(view),
        *(_moment(report, moment, images.get(moment.observation_ns, {}), view) for moment in shown),
        _joints(report),
        *((shadow_sections(report),) if result.mode == SHADOW else ()),
        _repeat(report),
    )
    return document(f"{report.origin.bag}: {report.origin.policy}, {result.mode}", sections)


def _head(report: ReplayReport) -> str:
    origin, result = report.origin, report.result
    what = {
        OPEN_LOOP: "every chunk against what was recorded; the arms went where the recording says.",
        SHADOW: "what the executor would have sent, while the arms went where the recording says.",
    }[result.mode]
    delays = ", ".join(f"{name} {delay:g} s" for name, delay in origin.delays_s.items())
    lost = f"<p><b>{escape(origin.lost)}</b></p>" if origin.lost else ""
    return (
        f'<div class="eyebrow">Replay, {result.mode} &middot; {escape(report.created[:10])}</div>'
        f"<h1>{escape(origin.bag)}</h1><p>&ldquo;{escape(result.instruction)}&rdquo;</p>"
        f'<p class="muted">Policy <b>{escape(origin.policy)}</b>, robot <b>{escape(origin.robot)}</b>, '
        f"{result.times_s[-1]:.2f} s, delays: {escape(delays)}. Shown: {what}</p>{lost}"
    )


def _alarm(report: ReplayReport) -> str:
    if not report.result.suspicions:
        return ""
    entries = "".join(f"<p>{escape(text)}</p>" for text in report.result.suspicions)
    return f'<div class="alarm"><h2>Suspicious</h2>{entries}</div>'


def _cards(report: ReplayReport) -> str:
    result = report.result
    overall = result.errors.overall
    cards = [(f"{overall[0]:.4f}", f"mean error of the policy {_UNIT}")]
    best = 1 + int(np.argmin(overall[1:]))
    ratio = overall[best] / max(overall[0], 1e-12)
    meaning = f"error of the best baseline ({METHODS[best]}) over the policy's; above 1 the policy is closer"
    cards.append((f"{ratio:.2f} x", meaning))
    cards.append((f"{result.chunks}", f"chunks, {result.encodes} contexts"))
    if result.mode == SHADOW:
        hits = int(sum(counts.sum() for counts in result.hits.values()))
        cards.append((f"{hits}", "waypoints and pieces of motion that a limit would change"))
        cards.append((f"{sum(result.refusals.values())}", "chunks that would be refused"))
    shown = "".join(f'<div class="panel"><b>{big}</b><span>{escape(small)}</span></div>' for big, small in cards)
    return f'<div class="cards" style="grid-template-columns:repeat(auto-fit,minmax(138px,1fr))">{shown}</div>'


def _curves(report: ReplayReport) -> str:
    result = report.result
    end_s = float(result.times_s[-1])
    charts = {
        f"Mean error over the horizon {_UNIT}": replay_plots.horizon_chart(result.errors, _step_s(report)),
        f"Mean error of each chunk {_UNIT}": replay_plots.chunk_chart(result.errors, result.start_ns, end_s),
    }
    legend = "".join(
        f'<span><i class="rule {name}"></i>{escape(f"{name}: {_MEANINGS[name]}" if name != "policy" else name)}</span>'
        for name in METHODS
    )
    return (
        f'<h2>Error against the recorded commands</h2><div class="charts">{panels(charts)}</div>'
        f'<div class="legend">{legend}<span>smaller is better</span></div>{_against_baselines(report)}'
    )


def _against_baselines(report: ReplayReport) -> str:
    """Policy against each baseline over the same chunks, with the interval of the difference."""
    errors = report.result.errors
    times_s = (errors.chunk_ns - report.result.start_ns) * 1e-9
    rows = [f'<tr><td>policy</td><td class="number">{errors.overall[0]:.4f}</td><td></td><td></td><td></td></tr>']
    for m, name in enumerate(METHODS[1:], start=1):
        policy, other = errors.per_chunk[:, 0], errors.per_chunk[:, m]
        found = block_difference(policy, other, times_s)
        kind = "" if found.upper < 0.0 else " bad"
        rows.append(
            f'<tr><td>{name}: {_MEANINGS[name]}</td><td class="number">{errors.overall[m]:.4f}</td>'
            f'<td class="number{kind}">{found.mean:+.4f}</td>'
            f'<td class="number">{found.lower:+.4f} to {found.upper:+.4f}</td>'
            f'<td class="number">{int((policy < other).sum())} of {len(policy)} chunks</td></tr>'
        )
    few = f" {found.units} blocks are few; take the interval for a rough one." if found.units < _FEW_BLOCKS else ""
    return (
        '<div class="scroll tall" style="margin-top:16px"><table><thead><tr><th>predicts</th>'
        '<th class="number">mean error</th><th class="number">policy minus it</th>'
        '<th class="number">95 % interval</th><th class="number">policy closer in</th>'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="muted">Below zero the policy is closer. Interval: bootstrap over {found.units} blocks of 2 s, as '
        f"neighbouring chunks predict much the same.{few} Every chunk counts alike in the "
        "difference, every step in the mean. Red: not shown to be better.</p>"
    )


def _moment_legend(view: View | None) -> str:
    paths = (
        '<p class="muted">Lines in the images: where the fingers go over the chunk, predicted and commanded in the '
        "recording, by the kinematics and the calibrations of the robot description. A ring marks the beginning, a "
        "dot the end.</p>"
        if view
        else ""
    )
    return paths + (
        '<div class="legend"><span><i class="rule policy"></i>predicted</span>'
        '<span><i class="rule recorded"></i>commanded in the recording</span>'
        '<span><i class="rule was"></i>measured in the recording</span>'
        '<span><i class="rule event"></i>the observation; time from it in [s]</span>'
        f"<span>positions {_UNIT}</span></div>"
    )


def _moment(report: ReplayReport, moment: Moment, images: Mapping[str, bytes], view: View | None) -> str:
    result = report.result
    time_s = (moment.observation_ns - result.start_ns) * 1e-9
    errors = np.nanmean(np.abs(moment.predicted - moment.recorded)[moment.committed :], axis=0)
    worst = np.argsort(-errors, kind="stable")[:_JOINTS_OF_A_MOMENT]
    charts = {f"{result.joint_names[k]} ({errors[k]:.3f})": replay_plots.moment_panel(moment, result, k) for k in worst}
    columns = f"grid-template-columns:repeat({min(max(len(images), 2), 4)},1fr)"
    film = "".join(
        f"<figure>{_picture(report, moment, camera, jpeg, view)}<figcaption>{escape(camera)}</figcaption></figure>"
        for camera, jpeg in images.items()
    )
    return (
        f'<article><header><h3>{time_s:.2f} s</h3><span class="muted">mean error {moment.error:.4f}; the joints that '
        f'are farthest off, with their error</span></header><div class="film" style="{columns}">{film}</div>'
        f'<div class="joints" style="grid-template-columns:repeat(auto-fill,minmax(240px,1fr))">{panels(charts)}</div>'
        "</article>"
    )


def _picture(report: ReplayReport, moment: Moment, camera: str, jpeg: bytes, view: View | None) -> str:
    """An image, with paths where the camera is calibrated."""
    calibration = view.robot.cameras[camera].calibration if view else None
    if calibration is None:
        return f'<img alt="" src="{jpeg_source(jpeg)}">'
    result = report.result
    time_s = (moment.observation_ns - result.start_ns) * 1e-9
    measured = result.measured[min(int(np.searchsorted(result.times_s, time_s - 1e-9)), len(result.measured) - 1)]
    motions = {"recorded": moment.recorded, "policy": moment.predicted}
    paths = paths_in_image(view.kinematics, calibration, result.joint_names, measured, motions)
    return overlay(jpeg, calibration.size, paths, f"{camera} with the paths of the hands")


def _joints(report: ReplayReport) -> str:
    result, errors = report.result, report.result.errors
    head = "".join(f'<th class="number">{name}</th>' for name in METHODS)
    rows = []
    for j, joint in enumerate(result.joint_names):
        values = errors.per_joint[:, j]
        cells = "".join(f'<td class="number">{value:.4f}</td>' for value in values[1:])
        bad = " bad" if values[0] > values[1] * FAR + LEAST_ERROR else ""
        best = METHODS[int(np.argmin(values))]
        rows.append(
            f'<tr><td>{escape(joint)}</td><td class="number{bad}">{values[0]:.4f}</td>{cells}<td>{best}</td></tr>'
        )
    step_s = _step_s(report)
    charts = {
        joint: replay_plots.horizon_chart(errors, step_s, j, f"{joint}: error over the horizon")
        for j, joint in enumerate(result.joint_names)
    }
    return (
        f'<h2>Error per joint</h2><p class="muted">Mean over {len(errors.chunk_ns)} chunks and '
        f"{int(errors.counts.sum())} steps {_UNIT}; smaller is better. Red: the policy is over {FAR:g} times as far "
        f'off as holding still, and by more than {LEAST_ERROR:g}.</p><div class="scroll tall"><table><thead><tr>'
        "<th>joint</th>"
        f"{head}<th>best</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<div class="joints">{panels(charts)}</div>'
        f'<p class="muted">Error {_UNIT} over the time into the chunk [s], colours as above.</p>'
    )


def _repeat(report: ReplayReport) -> str:
    origin = report.origin
    entries = {
        "recording (sha256)": origin.bag_sha256,
        "weights (sha256)": origin.policy_sha256,
        "robot description (sha256)": origin.robot_sha256,
        "created": report.created,
        **report.versions,
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in entries.items())
    return (
        f"<h2>To repeat it</h2><pre>{escape(report.command)}</pre><dl>{rows}</dl>"
        '<p class="muted">Error: absolute difference between a value of a chunk and what the controllers were asked '
        "for at the same instant in the recording, in the unit of the joint; steps that were committed when the chunk "
        "was planned count nowhere. A command is known to the baselines up to the end of these steps.</p>"
    )


def _step_s(report: ReplayReport) -> float:
    moment = report.result.errors.moments[0]
    return float(moment.times_ns[1] - moment.times_ns[0]) * 1e-9 if len(moment.times_ns) > 1 else 0.02
