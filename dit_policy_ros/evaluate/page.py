"""One HTML page of a report, with style, plots and short videos inside; it opens without a network."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

import numpy as np

from dit_policy_ros.evaluate import plots
from dit_policy_ros.evaluate.document import document, panels, write_whole
from dit_policy_ros.evaluate.record import EpisodeRecord, worst_first
from dit_policy_ros.evaluate.report import INTERVAL_METHOD, Report, join
from dit_policy_ros.evaluate.smoothness import SEAM_JUMP, SEAM_JUMP_MEANS, STEP_BACK_MEANS
from dit_policy_ros.evaluate.statistics import Interval, percentiles
from dit_policy_ros.evaluate.timing_page import timing_tables

EMBEDDED_VIDEO_BYTES = 4_000_000
_DETAILED = 4
_OUTCOME_WORDS = {"strict": "success", "sticky": "reached, not kept", "failure": "failure"}


def write_page(report: Report, directory: Path) -> Path:
    """Writes ``index.html`` and returns its path; an older one is replaced in one step.

    Shown in detail are the worst episodes, and one success beside them. A video is taken into the page while it is
    small, and linked otherwise; its path in the record is relative to ``directory``.
    """
    return write_whole(directory / "index.html", render_page(report, directory))


def render_page(report: Report, directory: Path) -> str:
    """Returns the page's text; videos are looked up in ``directory``."""
    detailed = _detailed(report.episodes)
    sections = (
        _head(report),
        _hero(report),
        _cards(report),
        _outcomes(report, detailed),
        _distributions(report),
        timing_tables(report),
        "<h2>Episodes in detail, worst first</h2>",
        *(_episode(episode, directory) for episode in detailed),
        _table(report),
        _repeat(report),
    )
    return document(f"{report.world}: {100 * report.strict[0] / len(report.episodes):.1f} %", sections)


def _detailed(episodes: tuple[EpisodeRecord, ...]) -> tuple[EpisodeRecord, ...]:
    """The worst, the last of them replaced by a typical success if there is none among them."""
    ordered = worst_first(episodes)
    chosen = ordered[:_DETAILED]
    successes = [episode for episode in ordered if episode.strict]
    if successes and not any(episode.strict for episode in chosen):
        chosen = (*chosen[: _DETAILED - 1], successes[len(successes) // 2])
    return chosen


def _head(report: Report) -> str:
    delays = ", ".join(f"{name} {delay:g} s" for name, delay in report.delays.items()) or "as measured"
    delays += f" ({report.pattern})" if report.pattern not in ("", "constant") else ""
    method = f", chunks joined by <b>{escape(report.method)}</b>" if report.method else ""
    return (
        f'<div class="eyebrow">Closed-loop evaluation &middot; {escape(report.created[:10])}</div>'
        f"<h1>{escape(report.world)}</h1>"
        f'<p class="muted">Policy <b>{escape(report.policy)}</b>, {len(report.episodes)} episodes, '
        f"seeds {report.episodes[0].seed} to {report.episodes[-1].seed}, delays: {escape(delays)}{method}.</p>"
    )


def _hero(report: Report) -> str:
    total = len(report.episodes)

    def rate(kind: str, name: str, meaning: str, count: int, interval: Interval) -> str:
        return (
            f'<div class="panel"><div class="muted">{name}</div>'
            f'<div class="rate">{100 * count / total:.1f}<small> %</small></div>'
            f"<p>{count} of {total}; 95 % interval {100 * interval.lower:.1f} to {100 * interval.upper:.1f} %</p>"
            f'{plots.interval_bar(count / total, interval, f"fill-{kind}")}<p class="muted">{meaning}</p></div>'
        )

    strict = rate(
        "strict", "Success, strict", "Done, and still so at the end with the giving hand clear.", *report.strict
    )
    sticky = rate("sticky", "Success, sticky", "Largest reward reached once, as results are published.", *report.sticky)
    return f'<div class="hero">{strict}{sticky}</div>'


def _cards(report: Report) -> str:
    metrics = report.to_dict()["metrics"]

    def value(name: str, key: str, unit: str, digits: int = 2) -> str:
        entry = metrics.get(name) or metrics["smoothness"].get(name)
        return f"{entry[key]:.{digits}f} {unit}" if entry else "not measured"

    cards = (
        (value("context_age_s", "p50", "s"), f"context age, median (95 %: {value('context_age_s', 'p95', 's')})"),
        (
            value("seam_position", "p99", "rad", 3),
            f"{SEAM_JUMP}, 99 % (largest: {value('seam_position', 'p100', 'rad', 3)})",
        ),
        (value("tracking_error", "p95", "rad", 3), "tracking error, 95 %"),
        (value("time_to_success_s", "p50", "s"), "time to success, median"),
        (f"{metrics['position_hits'] + metrics['velocity_hits']}", "waypoints the limiter changed"),
        (f"{sum(metrics['refusals'].values())}", "chunks refused" + _reasons(metrics["refusals"])),
    )
    shown = "".join(
        f'<div class="panel"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in cards
    )
    advice = "" if report.context_wait is None else report.context_wait.advice()
    notice = f'<p class="panel"><b>{escape(advice)}</b></p>' if advice else ""
    return f'<div class="cards">{shown}</div>{notice}'


def _reasons(counts: dict[str, int]) -> str:
    return f" ({', '.join(f'{name} {count}' for name, count in counts.items())})" if counts else ""


def _outcomes(report: Report, detailed: tuple[EpisodeRecord, ...]) -> str:
    counts = {kind: sum(episode.outcome == kind for episode in report.episodes) for kind in _OUTCOME_WORDS}
    legend = "".join(
        f'<span><i class="{kind}"></i>{word}: {counts[kind]}</span>' for kind, word in _OUTCOME_WORDS.items()
    )
    strip = plots.outcome_strip(report.episodes, {episode.seed for episode in detailed})
    return f'<h2>Every episode, by seed</h2>{strip}<div class="legend">{legend}</div>'


def _distributions(report: Report) -> str:
    episodes = report.episodes
    charts = {
        "Context age while acting": plots.histogram(
            join(episode.context_ages_s for episode in episodes), "Context age", "age of the context [s]"
        ),
        "Jumps at seams, all joints and chunks": plots.histogram(
            join(episode.seam_positions for episode in episodes), "Jumps at seams", f"{SEAM_JUMP} [rad]"
        ),
    }
    for name in sorted({name for episode in episodes for name in episode.latencies_s}):
        values = 1e3 * join(episode.latencies_s.get(name, np.empty(0)) for episode in episodes)
        charts[f"Latency: {name}"] = plots.histogram(values, f"Latency of {name}", "duration [ms]")
    shown = panels(charts)
    return f'<h2>Timing and smoothness</h2><div class="charts">{shown}</div>' if shown else ""


def _episode(episode: EpisodeRecord, directory: Path) -> str:
    reached_s = episode.reached_s
    facts = [
        f"best reward {episode.best_reward} of {episode.max_reward}",
        f"at the end {episode.final_reward}",
        f"reached after {reached_s:.2f} s" if reached_s is not None else "never reached",
        f"{episode.chunks} chunks, {episode.encodes} contexts",
    ]
    events = "".join(f"<dt>{time_s:.2f} s</dt><dd>{escape(text)}</dd>" for time_s, text in episode.events)
    joints = panels({name: plots.joint_panel(episode, k) for k, name in enumerate(episode.joint_names)})
    bag = f' &middot; <a href="{escape(episode.bag, quote=True)}">recording</a>' if episode.bag else ""
    timelines = {
        "Reward": plots.reward_timeline(episode),
        "Context age [s]": plots.context_timeline(episode),
        "Largest jump at each seam [rad]": plots.seam_timeline(episode),
    }
    return (
        f'<article id="seed-{episode.seed}"><header>{_badge(episode)}<h3>Seed {episode.seed}: '
        f"&ldquo;{escape(episode.instruction)}&rdquo;</h3>"
        f'<span class="muted">{escape(", ".join(facts))}{bag}</span></header>'
        f"{_video(episode, directory)}"
        f'<div class="charts">{panels(timelines)}'
        f'<div class="panel"><h3>Executor</h3><dl>{events or "<dd>no transitions</dd>"}</dl></div></div>'
        '<div class="legend" style="margin-top:14px"><span><i class="rule commanded"></i>commanded</span>'
        '<span><i class="rule measured"></i>measured, in [rad], grippers 0..1, over time [s]</span>'
        f'<span><i class="rule event"></i>executor transition</span></div><div class="joints">{joints}</div></article>'
    )


def _badge(episode: EpisodeRecord) -> str:
    return f'<span class="badge {episode.outcome}">{_OUTCOME_WORDS[episode.outcome]}</span>'


def _video(episode: EpisodeRecord, directory: Path) -> str:
    file = directory / episode.video
    if not episode.video or not file.is_file():
        return ""
    if file.stat().st_size <= EMBEDDED_VIDEO_BYTES:
        source = "data:video/mp4;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
    else:
        source = escape(episode.video, quote=True)
    return f'<video controls muted loop playsinline preload="metadata" src="{source}"></video>'


def _table(report: Report) -> str:
    heads = ("seed", "best", "end", "reached [s]", "age 95 % [s]", "seam [rad]", "limited", "refused")
    head = "".join(f'<th class="number">{name}</th>' for name in heads)
    rows = []
    for episode in worst_first(report.episodes):
        age = percentiles(episode.context_ages_s).get("p95")
        numbers = (
            f"{episode.seed}",
            f"{episode.best_reward}",
            f"{episode.final_reward}",
            "" if episode.reached_s is None else f"{episode.reached_s:.2f}",
            "" if age is None else f"{age:.2f}",
            f"{episode.largest_seam:.3f}",
            f"{episode.position_hits + episode.velocity_hits}",
            f"{sum(episode.refusals.values())}",
        )
        cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
        rows.append(f'<tr><td>{_badge(episode)}</td>{cells}<td class="wide">{escape(episode.instruction)}</td></tr>')
    return (
        f'<h2>All episodes, worst first</h2><div class="scroll"><table><thead><tr><th>outcome</th>{head}'
        f"<th>instruction</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _repeat(report: Report) -> str:
    entries = {
        "weights (sha256)": report.policy_sha256 or "none",
        "interval": f"{INTERVAL_METHOD.capitalize()} score interval, 95 %",
        "created": report.created,
        **report.versions,
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in entries.items())
    return (
        f"<h2>To repeat it</h2><pre>{escape(report.command)}</pre><dl>{rows}</dl>"
        '<p class="muted">Context age: time since the observation behind the context that the running chunk was made '
        f"with. {SEAM_JUMP_MEANS} {STEP_BACK_MEANS} Tracking error: measured minus commanded position at the same "
        "instant. In the table: "
        "best reward, reward at the end, when the largest reward was reached, context age, largest jump at a seam, "
        "waypoints that the limiter changed, chunks refused.</p>"
    )
