"""One HTML page of a comparison: rates or errors with their intervals, and what the pairs say."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from dit_policy_ros.evaluate import plots
from dit_policy_ros.evaluate.comparison import Comparison, ErrorPair, SuccessPair
from dit_policy_ros.evaluate.document import document, json_text, write_whole
from dit_policy_ros.evaluate.sequential import CONTINUE, FIRST, NONE
from dit_policy_ros.evaluate.svg import Chart


def write_comparison(comparison: Comparison, directory: Path) -> Path:
    """Writes ``comparison.json`` and ``index.html``, and returns the path of the page."""
    write_whole(directory / "comparison.json", json_text(comparison.to_dict()))
    return write_whole(directory / "index.html", render_comparison(comparison))


def render_comparison(comparison: Comparison) -> str:
    """Returns the page's text."""
    is_success = comparison.kind == "success"
    sections = (
        _head(comparison),
        _rates(comparison) if is_success else _errors(comparison),
        "<h2>Pair by pair</h2>",
        *(
            _success_pair(comparison, p) if isinstance(p, SuccessPair) else _error_pair(comparison, p)
            for p in comparison.pairs
        ),
        "" if is_success else _joints(comparison),
        _meaning(comparison),
        _repeat(comparison),
    )
    return document(f"{comparison.subject}: {' against '.join(run.label for run in comparison.runs)}", sections)


def _head(comparison: Comparison) -> str:
    what = {"success": f"Success ({comparison.outcome})", "error": "Open-loop error"}[comparison.kind]
    names = ", ".join(f"<b>{escape(run.label)}</b>" for run in comparison.runs)
    return (
        f'<div class="eyebrow">Comparison &middot; {escape(comparison.created[:10])}</div>'
        f'<h1>{escape(comparison.subject)}</h1><p class="muted">{what} of {names}.</p>'
    )


def _rates(comparison: Comparison) -> str:
    panels_ = []
    for label, (count, total, wilson, exact) in comparison.rates.items():
        panels_.append(
            f'<div class="panel"><div class="muted">{escape(label)}</div>'
            f'<div class="rate">{100 * count / total:.1f}<small> %</small></div>'
            f"<p>{count} of {total}; 95 % interval {100 * wilson.lower:.1f} to {100 * wilson.upper:.1f} % (Wilson), "
            f"{100 * exact.lower:.1f} to {100 * exact.upper:.1f} % (Clopper-Pearson)</p>"
            f"{plots.interval_bar(count / total, wilson, 'fill-strict')}</div>"
        )
    return f'<div class="hero">{"".join(panels_)}</div>'


def _success_pair(comparison: Comparison, pair: SuccessPair) -> str:
    counts, sequential = pair.counts, pair.sequential
    first, second = escape(pair.first), escape(pair.second)
    table = (
        '<div class="scroll tall" style="max-width:620px"><table><thead><tr><th></th>'
        f'<th class="number">{second} succeeds</th><th class="number">{second} fails</th></tr></thead><tbody>'
        f'<tr><td>{first} succeeds</td><td class="number">{counts.both}</td>'
        f'<td class="number">{counts.only_first}</td></tr>'
        f'<tr><td>{first} fails</td><td class="number">{counts.only_second}</td>'
        f'<td class="number">{counts.neither}</td></tr></tbody></table></div>'
    )
    return (
        f"<article><header><h3>{first} and {second}</h3>{_badge(_verdict(pair), pair)}</header>"
        f"{table}<p>McNemar's exact test on {len(pair.seeds)} common seeds: p = {_p(counts.p_value)}"
        f"{_corrected(comparison, pair.p_holm)}.</p>"
        f"<p>{_sequential_text(pair)}</p>"
        f'<div class="panel" style="margin-top:12px">{_evidence_chart(pair)}</div>'
        '<p class="muted">Evidence: how much likelier the outcomes are if the policies differ than if they do not, '
        f"natural logarithm. At the line ({sequential.threshold:.2f}, {np.exp(sequential.threshold):.1f} times) the "
        f"rule stops.</p>{_strips(comparison, pair)}</article>"
    )


def _verdict(pair: SuccessPair) -> str:
    verdict = pair.sequential.verdict
    if verdict in (CONTINUE, NONE):
        return verdict
    return f"{pair.first if verdict == FIRST else pair.second} is better"


def _badge(text: str, pair: SuccessPair) -> str:
    kind = "note" if pair.sequential.verdict in (CONTINUE, NONE) else "good"
    return f'<span class="badge {kind}">{escape(text)}</span>'


def _sequential_text(pair: SuccessPair) -> str:
    sequential, seen = pair.sequential, len(pair.sequential.evidence)
    rule = f"Sequential rule (at most {sequential.most_pairs} pairs, error {sequential.alpha:g}): "
    if sequential.verdict == CONTINUE:
        return f"{rule}go on; {seen} pairs say too little yet."
    if sequential.verdict == NONE:
        return f"{rule}all {seen} pairs were looked at; no difference is shown."
    return f"{rule}{escape(_verdict(pair))}; it could have stopped after {sequential.stopped_after} pairs."


def _evidence_chart(pair: SuccessPair) -> str:
    evidence, level = pair.sequential.evidence, pair.sequential.threshold
    low, high = min(0.0, float(evidence.min(initial=0.0))), max(level, float(evidence.max(initial=0.0)))
    slack = 0.1 * (high - low)
    shown = max(len(evidence), 2)
    chart = Chart("Evidence for a difference", (0.0, float(shown)), (low - slack, high + slack), 1040, 190)
    chart.axes("pairs of episodes", x_ticks=10)
    chart.line(np.array([0.0, shown]), np.array([level, level]), "mark dashed")
    chart.line(np.arange(len(evidence) + 1, dtype=float), np.concatenate([[0.0], evidence]), "policy")
    return chart.render()


def _strips(comparison: Comparison, pair: SuccessPair) -> str:
    """Both policies' outcomes, a column a seed."""
    cell = 20
    columns = min(len(pair.seeds), 52)
    parts = []
    blocks = -(-len(pair.seeds) // columns)
    for k, seed in enumerate(pair.seeds):
        x = (k % columns) * cell + 1
        for row, label in enumerate((pair.first, pair.second)):
            y = (k // columns) * (2 * cell + 8) + row * cell + 1
            won = comparison.outcomes[label][seed]
            kind = "strict" if won else "failure"
            title = escape(f"seed {seed}, {label}: {'success' if won else 'failure'}")
            parts.append(
                f'<rect class="cell {kind}" x="{x}" y="{y}" width="{cell - 3}" height="{cell - 3}" rx="3">'
                f"<title>{title}</title></rect>"
            )
            if not won:  # For those who do not see the colour.
                parts.append(f'<path class="sign" d="M{x + 5} {y + 5}l7 7m0 -7l-7 7"/>')
    width, height = columns * cell, blocks * (2 * cell + 8) - 8
    return (
        f'<p class="muted" style="margin-top:12px">Every seed: {escape(pair.first)} above, {escape(pair.second)} below.'
        f'</p><svg viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" '
        f'aria-label="Outcomes by seed">{"".join(parts)}</svg>'
    )


def _errors(comparison: Comparison) -> str:
    labels = list(comparison.errors)
    head = "".join(f'<th class="number">{escape(label)}</th>' for label in labels)
    bags = sorted({bag for errors in comparison.errors.values() for bag in errors})
    rows = []
    for bag in bags:
        values = [comparison.errors[label].get(bag) for label in labels]
        rows.append(_row(bag, values))
    means = [float(np.mean(list(comparison.errors[label].values()))) for label in labels]
    rows.append(_row("mean", means))
    return (
        '<h2>Mean error [rad; gripper 0 to 1]</h2><p class="muted">Smaller is better; bold is the smallest.</p>'
        '<div class="scroll"><table><thead><tr><th>recording</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(name: str, values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    cells = []
    for value in values:
        shown = "" if value is None else f"{value:.4f}"
        best = value is not None and len(known) > 1 and value == min(known)
        cells.append(f'<td class="number">{f"<b>{shown}</b>" if best else shown}</td>')
    return f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>"


def _error_pair(comparison: Comparison, pair: ErrorPair) -> str:
    d = pair.difference
    first, second = escape(pair.first), escape(pair.second)
    if d.lower <= 0.0 <= d.upper:
        badge = f'<span class="badge note">{NONE}</span>'
    else:
        badge = f'<span class="badge good">{first if d.mean < 0 else second} has the smaller error</span>'
    wilcoxon = (
        f" Wilcoxon's signed-rank test: p = {_p(d.p_value)}{_corrected(comparison, pair.p_holm)}."
        if np.isfinite(d.p_value)
        else " They are too few recordings for a test of significance; the interval is about these recordings only."
    )
    return (
        f"<article><header><h3>{first} and {second}</h3>{badge}</header>"
        f"<p>Error of {first} minus error of {second}: {d.mean:+.4f}, 95 % interval {d.lower:+.4f} to {d.upper:+.4f}, "
        f"by bootstrap over {d.units} {pair.unit}.{wilcoxon}</p>{_difference_bar(pair)}</article>"
    )


def _difference_bar(pair: ErrorPair) -> str:
    d = pair.difference
    reach = 1.25 * max(abs(d.lower), abs(d.upper), 1e-9)
    low, mean, high = (300 + 280 * value / reach for value in (d.lower, d.mean, d.upper))

    return (
        '<svg viewBox="0 0 600 54" style="max-width:760px" role="img" aria-label="difference of the errors">'
        '<path class="axis" d="M300 6V36M20 21H580" stroke-width="1"/>'
        f'<path class="whisker" d="M{low:.1f} 21H{high:.1f}M{low:.1f} 13V29M{high:.1f} 13V29"/>'
        f'<circle class="fill-seen" cx="{mean:.1f}" cy="21" r="5"/>'
        '<text class="tick" x="300" y="50" text-anchor="middle">equal</text>'
        f'<text class="tick" x="20" y="50">{escape(pair.first)} better</text>'
        f'<text class="tick" x="580" y="50" text-anchor="end">{escape(pair.second)} better</text></svg>'
    )


def _joints(comparison: Comparison) -> str:
    labels = list(comparison.per_joint)
    head = "".join(f'<th class="number">{escape(label)}</th>' for label in labels)
    joints = list(next(iter(comparison.per_joint.values())))
    rows = "".join(_row(joint, [comparison.per_joint[label][joint] for label in labels]) for joint in joints)
    return (
        '<h2>Error per joint</h2><div class="scroll tall"><table><thead><tr><th>joint</th>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="muted">Mean over the recordings that all policies share.</p>'
    )


def _meaning(comparison: Comparison) -> str:
    if comparison.kind == "success":
        text = (
            "Only seeds on which the two policies differ tell them apart. McNemar's test is for a number of seeds that "
            "was chosen in advance; the sequential rule may be looked at after every pair, and finds a difference "
            "between equal policies no more often than its error says, within the largest number of pairs stated in "
            "advance. Where several pairs of policies are tested, p is corrected by Holm's method."
        )
    else:
        text = (
            "Recordings are the independent units. Where they are too few, the chunks of the same instants are "
            "compared, resampled in blocks of time because neighbours share most of what they predict."
        )
    return f'<p class="muted">{text}</p>'


def _repeat(comparison: Comparison) -> str:
    entries = {f"weights of {run.label} (sha256)": run.policy_sha256 or "none" for run in comparison.runs}
    for run in comparison.runs:
        shown = ", ".join(digest[:16] for digest in run.report_sha256[:8])
        more = f" and {len(run.report_sha256) - 8} more" if len(run.report_sha256) > 8 else ""
        entries[f"reports of {run.label} (sha256)"] = shown + more
    entries |= {"created": comparison.created, **comparison.versions}
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in entries.items())
    commands = {report["command"] for run in comparison.runs for report in run.reports}
    told = "\n".join([*sorted(commands)[:20], comparison.command])
    return f"<h2>To repeat it</h2><pre>{escape(told)}</pre><dl>{rows}</dl>"


def _corrected(comparison: Comparison, p_holm: float) -> str:
    return (
        f", corrected for {len(comparison.pairs)} pairs of policies {_p(p_holm)}" if len(comparison.pairs) > 1 else ""
    )


def _p(value: float) -> str:
    return "below 0.0001" if value < 1e-4 else f"{value:.4f}"
