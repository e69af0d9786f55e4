"""The page of a sweep: curves over the delays, and a table of every method at every delay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from dit_policy_ros.evaluate.document import document, panels, write_whole
from dit_policy_ros.evaluate.smoothness import SEAM_JUMP_MEANS, STEP_BACK_MEANS
from dit_policy_ros.evaluate.svg import Chart
from dit_policy_ros.evaluate.sweep import Point, Sweep

OWN = "own"
"""What the policy's own method is called."""
AXES = {"context": "context_delay_s", "action": "action_delay_s"}

Value = Callable[[Point], tuple[float, float, float] | None]
"""A figure with the lower and upper end of its interval; None where it is not known."""


def _success(point: Point) -> tuple[float, float, float]:
    return 100.0 * point.successes / len(point.seeds), 100.0 * point.interval.lower, 100.0 * point.interval.upper


def _figure(key: str, percentile: str) -> Value:
    def value(point: Point) -> tuple[float, float, float] | None:
        entry = point.metrics.get(key)
        at = entry.get(percentile) if isinstance(entry, Mapping) else entry
        if at is None:
            return None
        name = f"{key}_{percentile}" if percentile else key
        low, high = point.intervals.get(name, (at, at))
        return at, low, high

    return value


CURVES: Mapping[str, Value] = {
    "Success, strict [%]": _success,
    "Jump at a seam, 99 % [rad]": _figure("seam_position", "p99"),
    "Change of velocity at a seam, 99 % [rad/s]": _figure("seam_velocity", "p99"),
    "Second difference of what was commanded, 99 % [rad]": _figure("commanded_second_difference", "p99"),
    "Share of seams that step back": _figure("seams_backwards", ""),
    "Share of time without a fresh chunk": _figure("unplanned_share", ""),
}


def write_sweep_page(sweep: Sweep, directory: Path) -> Path:
    """Writes ``index.html`` and returns its path; an older one is replaced in one step."""
    return write_whole(directory / "index.html", render_sweep(sweep))


def render_sweep(sweep: Sweep) -> str:
    """Returns the page's text."""
    first = sweep.points[0]
    head = (
        f'<div class="eyebrow">Delays in virtual time &middot; {escape(sweep.created[:10])}</div>'
        f"<h1>{escape(sweep.world)}</h1>"
        f'<p class="muted">Policy <b>{escape(sweep.policy)}</b>, {len(first.seeds)} episodes a point, seeds '
        f"{first.seeds[0]} to {first.seeds[-1]}, the same for all.</p>"
    )
    sections = [head]
    for axis in AXES:
        charts = _charts(sweep.points, axis)
        if charts:
            sections.append(f'<h2>Over the {axis} delay</h2>{_legend(sweep.points)}<div class="charts">{charts}</div>')
    sections += [_table(sweep), _repeat(sweep)]
    return document(f"{sweep.world}: delays", sections)


def methods_of(points: Sequence[Point]) -> tuple[str, ...]:
    """Returns the methods in the order in which they come first."""
    return tuple(dict.fromkeys(point.condition.method or OWN for point in points))


def _on_curve(points: Sequence[Point], axis: str) -> dict[str, list[Point]]:
    """Method to its points along one delay: the largest set of points that share all else."""
    found: dict[str, list[Point]] = {}
    for method in methods_of(points):
        mine = [point for point in points if (point.condition.method or OWN) == method]
        others: dict[tuple, list[Point]] = {}
        for point in mine:
            fixed = (*(getattr(point.condition, name) for name in AXES.values() if name != AXES[axis]),)
            others.setdefault((*fixed, point.condition.pattern), []).append(point)
        largest = max(others.values(), key=len)
        if len(largest) > 1:
            found[method] = sorted(largest, key=lambda point: getattr(point.condition, AXES[axis]))
    return found


def _charts(points: Sequence[Point], axis: str) -> str:
    lines, methods = _on_curve(points, axis), methods_of(points)
    charts = {}
    for title, value in CURVES.items():
        known = {name: [(point, value(point)) for point in row if value(point)] for name, row in lines.items()}
        if any(known.values()):
            charts[title] = _chart(title, known, methods, axis)
    return panels(charts)


def _chart(title: str, known: Mapping[str, list], methods: Sequence[str], axis: str) -> str:
    delays = [getattr(point.condition, AXES[axis]) for row in known.values() for point, _ in row]
    top = max(high for row in known.values() for _, (_, _, high) in row)
    top = 100.0 if title.startswith("Success") else top
    chart = Chart(title, (0.0, max(delays) or 1.0), (0.0, max(top, 1e-9) * 1.05), 520, 220)
    chart.axes(f"{axis} delay [s]")
    for name, row in known.items():
        kind = f"curve-{methods.index(name) % 12}"
        xs = np.array([getattr(point.condition, AXES[axis]) for point, _ in row])
        chart.line(xs, np.array([at for _, (at, _, _) in row]), kind)
        for x, (_, (_, low, high)) in zip(xs, row, strict=True):
            chart.line(np.array([x, x]), np.array([low, high]), f"{kind} spread")
    return chart.render()


def _legend(points: Sequence[Point]) -> str:
    entries = "".join(
        f'<span><i class="rule curve-{k % 12}"></i>{escape(name)}</span>' for k, name in enumerate(methods_of(points))
    )
    return f'<div class="legend">{entries}<span>with 95 % intervals</span></div>'


_COLUMNS = (
    "success",
    "95 %",
    "p",
    "seam 99 %",
    "step 99 %",
    "velocity 99 %",
    "step back",
    "momentum",
    "2nd diff.",
    "told 99 %",
    "SPARC",
    "no plan",
    "held",
    "delay",
    "limits",
)


_LEGEND = (
    "p: McNemar's exact test against the first method at the same delays, on the same seeds. Seam: jump at a seam, as "
    "below [rad]; step: largest motion of one control step in a chunk [rad]; velocity: its change at a seam [rad/s]; "
    "step back: share of seams, as below; momentum: cosine of the velocities of plan and chunk at a seam, of the arm "
    "for which it is smallest, median and 5 %, where an arm moves; 2nd diff.: mean absolute second difference in "
    "chunks [rad]; told: 99 % of that of what the controllers were told [rad]; SPARC: spectral arc length, median; no "
    "plan: share of time without a fresh chunk; held: share of time in which the arms waited because the context was "
    "older than max_context_age_s; delay: from an observation to its chunk taking over, 95 % [s]; limits: waypoints "
    "that position and speed limits changed."
)


def _table(sweep: Sweep) -> str:
    head = "".join(f'<th class="number">{name}</th>' for name in _COLUMNS)
    rows = "".join(_row(sweep, point) for point in sweep.points)
    return (
        '<h2>Every point</h2><div class="scroll tall"><table><thead><tr><th>method</th><th>context</th><th>action</th>'
        f"<th>delays</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        f'<p class="muted">{_LEGEND} {SEAM_JUMP_MEANS} {STEP_BACK_MEANS}</p>{_notice(sweep)}'
    )


def _notice(sweep: Sweep) -> str:
    """What the limit on the age of contexts cost where it cost most."""
    waits = [point.metrics.get("context_wait") or {} for point in sweep.points]
    held = max(waits, key=lambda wait: wait.get("held_share", 0.0), default={})
    return f'<p class="panel"><b>{escape(held["advice"])}</b></p>' if held.get("advice") else ""


def _row(sweep: Sweep, point: Point) -> str:
    metrics, condition, p_value = point.metrics, point.condition, sweep.against(point)

    def of(key: str, percentile: str, digits: str = ".3g") -> str:
        entry = metrics.get(key) or {}
        return format(entry[percentile], digits) if percentile in entry else ""

    held = (metrics.get("context_wait") or {}).get("held_share")
    names = ("unplanned_share", "seams_backwards", "chunk_second_difference_mean")
    share, backwards, second = (metrics.get(name) for name in names)
    cells = (
        f"{100 * point.successes / len(point.seeds):.1f}",
        f"{100 * point.interval.lower:.1f} to {100 * point.interval.upper:.1f}",
        "" if p_value is None else f"{p_value:.3f}",
        of("seam_position", "p99"),
        of("chunk_step", "p99"),
        of("seam_velocity", "p99"),
        "" if backwards is None else f"{100 * backwards:.1f} %",
        " / ".join(filter(None, (of("momentum_cosine", "p50", ".2f"), of("momentum_cosine", "p5", ".2f")))),
        "" if second is None else f"{second:.2g}",
        of("commanded_second_difference", "p99"),
        of("spectral_arc_length", "p50"),
        "" if share is None else f"{100 * share:.1f} %",
        "" if held is None else f"{100 * held:.1f} %",
        of("delay_consumed_s", "p95", ".2f"),
        f"{metrics.get('position_hits', 0) + metrics.get('velocity_hits', 0)}",
    )
    numbers = "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells)
    return (
        f"<tr><td>{escape(condition.method or OWN)}</td><td>{condition.context_delay_s:g} s</td>"
        f"<td>{condition.action_delay_s:g} s</td><td>{escape(condition.pattern)}</td>{numbers}</tr>"
    )


def _repeat(sweep: Sweep) -> str:
    entries = {"weights (sha256)": sweep.policy_sha256 or "none", "created": sweep.created, **sweep.versions}
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in entries.items())
    return f"<h2>To repeat it</h2><pre>{escape(sweep.command)}</pre><dl>{rows}</dl>"
