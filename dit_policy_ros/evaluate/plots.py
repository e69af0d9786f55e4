"""The pictures of a report's page, as SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

import numpy as np

from dit_policy_ros.evaluate.record import EpisodeRecord
from dit_policy_ros.evaluate.statistics import Interval
from dit_policy_ros.evaluate.svg import Chart

_BINS = 40
_LEAST_SPAN = 0.2
"""Of a joint's panel, [rad]; a joint at rest must not look as if it shook."""
_TAIL_PERCENTILE = 99.8


def histogram(values: np.ndarray, title: str, x_label: str) -> str:
    """Returns a histogram with median and 95th percentile, or an empty text where nothing is known.

    The last bar gathers the longest 0.2 %, so that one outlier does not squeeze the rest.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return ""
    low = min(0.0, float(known.min()))
    high = float(np.percentile(known, _TAIL_PERCENTILE))
    high = high if high > low else low + max(abs(low), 1.0)
    counts, edges = np.histogram(np.clip(known, low, high), bins=_BINS, range=(low, high))
    shares = 100.0 * counts / len(known)
    chart = Chart(title, (low, high), (0.0, float(shares.max()) * 1.12))
    chart.axes(x_label, unit=" %")
    chart.bars(edges, shares, "bar")
    median, tail = (float(value) for value in np.percentile(known, [50, 95]))
    chart.verticals([median], "mark", f"median {_short(median)}")
    apart = tail - median > (high - low) * 0.25
    chart.verticals([tail], "mark dashed", f"95 %: {_short(tail)}" if apart else "")
    return chart.render()


def _short(value: float) -> str:
    """Two digits, and all of those before the point."""
    return f"{value:.0f}" if abs(value) >= 10.0 else f"{value:.2g}"


def interval_bar(rate: float, interval: Interval, kind: str) -> str:
    """Returns a bar from 0 to 100 % with the rate and its interval."""
    title = f"{100 * rate:.1f} %, interval {100 * interval.lower:.1f} to {100 * interval.upper:.1f} %"
    left, width = 4.0, 392.0
    low, high, at = (left + width * share for share in (interval.lower, interval.upper, rate))
    marks = "".join(
        f'<text class="tick" x="{left + width * share:.1f}" y="34" text-anchor="middle">{100 * share:g}</text>'
        for share in (0.25, 0.5, 0.75)
    )
    return (
        f'<svg viewBox="0 0 400 38" role="img" aria-label="{title}"><title>{title}</title>'
        f'<rect class="track" x="{left}" y="8" width="{width}" height="10" rx="5"/>'
        f'<rect class="{kind}" x="{left}" y="8" width="{max(at - left, 0.0):.1f}" height="10" rx="5"/>'
        f'<path class="whisker" d="M{low:.1f} 13H{high:.1f}M{low:.1f} 5V21M{high:.1f} 5V21"/>'
        f'<text class="tick" x="{left}" y="34">0</text>{marks}'
        f'<text class="tick" x="{left + width}" y="34" text-anchor="end">100 %</text></svg>'
    )


def outcome_strip(episodes: Sequence[EpisodeRecord], anchors: set[int]) -> str:
    """Returns one cell an episode; cells of the seeds in ``anchors`` link to their details."""
    columns, cell = 50, 20
    rows = -(-len(episodes) // columns)
    used = min(columns, len(episodes))
    parts = []
    for k, episode in enumerate(episodes):
        x, y = (k % columns) * cell + 1, (k // columns) * cell + 1
        tip = escape(f"seed {episode.seed}: {episode.outcome}. {episode.instruction}")
        shape = (
            f'<rect class="cell {episode.outcome}" x="{x}" y="{y}" width="{cell - 3}" height="{cell - 3}" rx="3">'
            f"<title>{tip}</title></rect>{_sign(episode.outcome, x, y, cell - 3)}"
        )
        parts.append(f'<a href="#seed-{episode.seed}">{shape}</a>' if episode.seed in anchors else shape)
    width = used * cell
    return (
        f'<svg class="strip" viewBox="0 0 {width} {rows * cell}" style="max-width:{width}px" role="img" '
        f'aria-label="Outcome of every episode">{"".join(parts)}</svg>'
    )


def _sign(outcome: str, x: float, y: float, size: float) -> str:
    """A sign inside a cell, for those who do not see its colour."""
    low, high = 0.3 * size, 0.7 * size
    if outcome == "failure":
        path = f"M{x + low:.1f} {y + low:.1f}L{x + high:.1f} {y + high:.1f}M{x + high:.1f} {y + low:.1f}"
        return f'<path class="sign" d="{path}L{x + low:.1f} {y + high:.1f}"/>'
    if outcome == "sticky":
        return f'<path class="sign" d="M{x + low:.1f} {y + size / 2:.1f}H{x + high:.1f}"/>'
    return ""


class Motion(Protocol):
    """Commanded and measured joints of an episode, live, simulated or replayed."""

    joint_names: tuple[str, ...]
    times_s: np.ndarray
    commanded: np.ndarray
    measured: np.ndarray


def joint_panel(episode: Motion, joint: int) -> str:
    """Returns commanded and measured position of one joint over time."""
    commanded, measured = episode.commanded[:, joint], episode.measured[:, joint]
    known = np.concatenate([commanded, measured])
    known = known[np.isfinite(known)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    slack = max(0.06 * (high - low), (_LEAST_SPAN - (high - low)) / 2)
    name = episode.joint_names[joint]
    chart = Chart(f"{name}: commanded and measured", _span(episode), (low - slack, high + slack), 165, 120, bare=True)
    chart.axes(x_ticks=3, y_ticks=3)
    chart.line(episode.times_s, commanded, "commanded")
    chart.line(episode.times_s, measured, "measured")
    return chart.render()


def context_timeline(episode: EpisodeRecord) -> str:
    """Returns the context's age over time, with a line at every transition of the executor."""
    known = episode.context_ages_s[np.isfinite(episode.context_ages_s)]
    high = max(float(known.max(initial=0.0)) * 1.25, 0.1)
    chart = Chart("Age of the context that acts", _span(episode), (0.0, high), 520, 150)
    chart.axes("time [s]")
    chart.verticals([time_s for time_s, _ in episode.events if time_s <= _span(episode)[1]], "event")
    chart.line(episode.times_s, episode.context_ages_s, "age")
    return chart.render()


def seam_timeline(episode: EpisodeRecord) -> str:
    """Returns the largest jump at every seam over time."""
    seams = episode.seam_positions
    jumps = np.fmax.reduce(seams, axis=1, initial=0.0) if len(seams) else np.empty(0)
    high = max(float(jumps.max(initial=0.0)) * 1.25, 0.02)
    chart = Chart("Largest jump of any joint at a seam", _span(episode), (0.0, high), 520, 150)
    chart.axes("time [s]")
    for time_s, jump in zip(episode.splice_times_s.tolist(), jumps.tolist(), strict=True):
        chart.line(np.array([time_s, time_s]), np.array([0.0, jump]), "stem")
    return chart.render()


def reward_timeline(episode: EpisodeRecord) -> str:
    """Returns the environment's reward over time."""
    top = max(episode.max_reward, episode.best_reward, 1)
    chart = Chart("Reward of the environment", _span(episode), (0.0, top * 1.15), 520, 150)
    chart.axes("time [s]", y_ticks=top)
    chart.line(np.repeat(episode.times_s, 2)[1:], np.repeat(episode.rewards.astype(float), 2)[:-1], "reward")
    return chart.render()


def _span(episode: Motion) -> tuple[float, float]:
    end = float(episode.times_s[-1]) if len(episode.times_s) else 0.0
    return 0.0, max(end, 1e-3)
