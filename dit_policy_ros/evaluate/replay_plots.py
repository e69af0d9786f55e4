"""The pictures of a replay's page, as SVG text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dit_policy_ros.evaluate.horizon_errors import METHODS, ErrorSummary, Moment
from dit_policy_ros.evaluate.interventions import KINDS, InterventionLog
from dit_policy_ros.evaluate.replay import ReplayResult
from dit_policy_ros.evaluate.svg import Chart

_LEAST_SPAN = 0.2
_MARKS = 450
"""Places on the timeline that can be told apart."""


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
    past = slice(*np.searchsorted(result.times_s, [before_s - 0.5, before_s + since_s[-1] + 1e-9]))
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


def intervention_timeline(interventions: InterventionLog, end_s: float) -> str:
    """Returns a row per kind; a mark tells on hover how many there were, and what the first was."""
    left, right, row = 150.0, 1050.0, 26
    parts = []
    for k, kind in enumerate(KINDS):
        top = 4 + k * row
        parts.append(
            f'<text class="label" x="{left - 10}" y="{top + 13}" text-anchor="end">'
            f"{kind}: {interventions.counts[kind]}</text>"
            f'<rect class="track" x="{left}" y="{top}" width="{right - left}" height="{row - 8}" rx="3"/>'
        )
        colour = "present" if kind == "state" else "fill-over"
        for share, count, first_s in _marks(interventions.times_s(kind), end_s):
            x = left + (right - left) * share
            tip = f"{first_s:.2f} s" + (f" and {count - 1} more up to here" if count > 1 else "")
            parts.append(
                f'<rect class="{colour}" x="{x - 1:.1f}" y="{top}" width="2.4" height="{row - 8}">'
                f"<title>{kind}, {tip}</title></rect>"
            )
    height = 4 + len(KINDS) * row + 30
    for k in range(6):
        x, anchor = left + (right - left) * k / 5, "end" if k == 5 else "middle"
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{height - 18}" text-anchor="{anchor}">{end_s * k / 5:.2f}</text>'
        )
    parts.append(
        f'<text class="label" x="{(left + right) / 2}" y="{height - 4}" text-anchor="middle">'
        "time in the recording [s]</text>"
    )
    title = "Interventions over time"
    return (
        f'<svg viewBox="0 0 1060 {height}" role="img" aria-label="{title}"><title>{title}</title>{"".join(parts)}</svg>'
    )


def _marks(times_s: np.ndarray, end_s: float) -> Iterator[tuple[float, int, float]]:
    """Yields (share of the time, number, first instant) of those too close to be told apart."""
    places = np.minimum((times_s / max(end_s, 1e-3) * _MARKS).astype(np.int64), _MARKS)
    found, begins, counts = np.unique(places, return_index=True, return_counts=True)
    for place, begin, count in zip(found.tolist(), begins.tolist(), counts.tolist(), strict=True):
        yield place / _MARKS, count, float(times_s[begin])
