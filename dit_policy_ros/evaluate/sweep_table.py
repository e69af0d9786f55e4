"""The points of a sweep as a Markdown table, to be put into a page of documentation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dit_policy_ros.evaluate.document import write_whole
from dit_policy_ros.evaluate.sweep import Point, Sweep
from dit_policy_ros.evaluate.sweep_page import OWN

HEADS = (
    "method",
    "context [s]",
    "action [s]",
    "strict",
    "95 %",
    "sticky",
    "p",
    "jump at a seam, p99 [rad]",
    "one step in a chunk, p99 [rad]",
    "change of velocity, p99 [rad/s]",
    "seams that step back",
    "momentum, median / p5",
    "second difference, mean [mrad]",
    "SPARC, median",
    "no fresh chunk",
    "held",
    "delay, p95 [s]",
)


def write_table(sweep: Sweep, directory: Path) -> Path:
    """Writes ``table.md`` and returns its path; an older one is replaced in one step."""
    return write_whole(directory / "table.md", table(sweep))


def table(sweep: Sweep) -> str:
    """Returns one row a point, under the command that repeats them."""
    lines = [f"`{sweep.command}`", "", _line(HEADS), _line("---" for _ in HEADS)]
    lines += [_line(_cells(sweep, point)) for point in sweep.points]
    return "\n".join(lines) + "\n"


def _line(cells) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(sweep: Sweep, point: Point) -> tuple[str, ...]:
    condition, metrics, count = point.condition, point.metrics, len(point.seeds)
    p_value, second = sweep.against(point), metrics.get("chunk_second_difference_mean")
    return (
        f"`{condition.method or OWN}`",
        f"{condition.context_delay_s:g}",
        f"{condition.action_delay_s:g}" + ("" if condition.pattern == "constant" else f", {condition.pattern}"),
        f"{100 * point.successes / count:.0f} %",
        f"{100 * point.interval.lower:.0f} to {100 * point.interval.upper:.0f} %",
        f"{100 * sum(point.sticky) / count:.0f} %",
        "" if p_value is None else f"{p_value:.3f}",
        _number(metrics, "seam_position"),
        _number(metrics, "chunk_step"),
        _number(metrics, "seam_velocity", digits=2),
        _share(metrics.get("seams_backwards")),
        " / ".join(filter(None, (_number(metrics, "momentum_cosine", at, 2) for at in ("p50", "p5")))),
        "" if second is None else f"{1000 * second:.2f}",
        _number(metrics, "spectral_arc_length", "p50", 2),
        _share(metrics.get("unplanned_share")),
        _share((metrics.get("context_wait") or {}).get("held_share")),
        _number(metrics, "delay_consumed_s", "p95", 2),
    )


def _number(metrics: Mapping[str, Any], name: str, at: str = "p99", digits: int = 3) -> str:
    entry = metrics.get(name) or {}
    return f"{entry[at]:.{digits}f}" if at in entry else ""


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"
