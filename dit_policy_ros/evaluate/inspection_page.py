"""One HTML page about a bag: what is in it, when, what is wrong with it, and small images of every camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from dit_policy_ros.data.inspection import Inspection
from dit_policy_ros.data.joint_ranges import JointRange
from dit_policy_ros.data.streams import Stream
from dit_policy_ros.data.thumbnails import Thumbnail
from dit_policy_ros.evaluate.document import document, jpeg_source, json_text, write_whole
from dit_policy_ros.robot import Joint, RobotSpec

_ROW, _LABEL, _WIDTH = 18, 300, 1060


def write_inspection(
    inspection: Inspection,
    images: Mapping[str, Sequence[Thumbnail]],
    robot: RobotSpec | None,
    directory: Path,
    proposal: str = "",
) -> Path:
    """Writes ``inspection.json`` and ``index.html``, and returns the path of the page.

    Args:
        images: topic to its thumbnails.
        robot: that the bag was held against.
        proposal: text of a robot YAML, shown on the page.
    """
    write_whole(directory / "inspection.json", json_text(inspection_dict(inspection)))
    return write_whole(directory / "index.html", render_inspection(inspection, images, robot, proposal))


def inspection_dict(inspection: Inspection) -> dict[str, Any]:
    """Returns what ``inspection.json`` holds: no date and no folder, so equal bags give equal files."""
    return {
        "bag": inspection.bag.path.name,
        "duration_s": inspection.duration_s,
        "instructions": list(inspection.instructions),
        "findings": [{"severity": f.severity, "subject": f.subject, "text": f.text} for f in inspection.findings],
        "streams": {topic: _stream_dict(stream) for topic, stream in inspection.streams.items()},
        "joints": {topic: [_joint_dict(joint) for joint in joints] for topic, joints in inspection.joints.items()},
    }


def render_inspection(
    inspection: Inspection,
    images: Mapping[str, Sequence[Thumbnail]],
    robot: RobotSpec | None,
    proposal: str = "",
) -> str:
    """Returns the page's text."""
    sections = (
        _head(inspection, robot),
        _findings(inspection),
        _films(images),
        _timeline(inspection),
        _table(inspection),
        _joints(inspection, robot),
        _proposal(proposal),
    )
    return document(f"{inspection.bag.path.name}: inspection", sections)


def _head(inspection: Inspection, robot: RobotSpec | None) -> str:
    against = f"Held against robot <b>{escape(robot.name)}</b>." if robot else "No robot was given to hold it against."
    errors, warnings = (sum(f.severity == kind for f in inspection.findings) for kind in ("error", "warning"))
    streams = inspection.streams.values()
    said = inspection.instructions or ((inspection.metadata.instruction,) if inspection.metadata.instruction else ())
    text = "; ".join(f"&ldquo;{escape(entry)}&rdquo;" for entry in said) or "none"
    cards = (
        (f"{inspection.duration_s:.2f} s", "first to last message"),
        (f"{sum(stream.count for stream in streams)}", f"messages on {len(inspection.streams)} topics"),
        (f"{errors}", "errors: the bag cannot be used as it is"),
        (f"{warnings}", "warnings: look at it"),
        (f"{sum(stream.dropped for stream in streams)}", "messages dropped, by the gaps in regular streams"),
    )
    shown = "".join(f'<div class="panel"><b>{big}</b><span>{small}</span></div>' for big, small in cards)
    return (
        f'<div class="eyebrow">Recording</div><h1>{escape(inspection.bag.path.name)}</h1>'
        f'<p class="muted">{against} Instruction: {text}.</p><div class="cards">{shown}</div>'
    )


def _findings(inspection: Inspection) -> str:
    rows = "".join(
        f'<tr><td><span class="badge {f.severity}">{f.severity}</span></td><td>{escape(f.subject)}</td>'
        f'<td class="wide">{escape(f.text)}</td></tr>'
        for f in inspection.findings
    )
    if not rows:
        return '<h2>Findings</h2><p><span class="badge good">none</span> Nothing is missing or irregular.</p>'
    return (
        '<h2>Findings</h2><div class="scroll tall"><table><thead><tr><th>severity</th><th>where</th><th>what</th></tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def _films(images: Mapping[str, Sequence[Thumbnail]]) -> str:
    films = "".join(
        f'<p class="muted">{escape(topic)}</p><div class="film">{"".join(_figure(entry) for entry in entries)}</div>'
        for topic, entries in images.items()
        if entries
    )
    return f"<h2>Cameras over time</h2>{films}" if films else ""


def _figure(image: Thumbnail) -> str:
    if image.problem:
        return f'<figure class="panel">{escape(image.problem)}<figcaption>{image.time_s:.2f} s</figcaption></figure>'
    source = jpeg_source(image.jpeg)
    return f'<figure><img alt="" src="{source}"><figcaption>{image.time_s:.2f} s</figcaption></figure>'


def _timeline(inspection: Inspection) -> str:
    """A row per topic; how dark a cell is says how many of the expected messages are there."""
    streams = [stream for stream in inspection.streams.values() if stream.count]
    if not streams:
        return ""
    parts, wide = [], _WIDTH - _LABEL
    for row, stream in enumerate(streams):
        top = row * _ROW + 2
        parts.append(f'<text class="label" x="{_LABEL - 8}" y="{top + 11}" text-anchor="end">{_short(stream)}</text>')
        parts.append(f'<rect class="track" x="{_LABEL}" y="{top}" width="{wide}" height="{_ROW - 5}" opacity="0.6"/>')
        cell = wide / len(stream.presence)
        for begin, end, share in _runs(stream.presence):
            x, width = _LABEL + begin * cell, (end - begin) * cell
            parts.append(
                f'<rect class="present" x="{x:.1f}" y="{top}" width="{width:.2f}" height="{_ROW - 5}" '
                f'opacity="{0.25 + 0.65 * share:.2f}"/>'
            )
    height = len(streams) * _ROW + 18
    for k in range(6):
        x, time_s = _LABEL + wide * k / 5, inspection.duration_s * k / 5
        anchor = "end" if k == 5 else "middle"
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 4}" text-anchor="{anchor}">{time_s:.2f} s</text>')
    title = "Messages of every topic over time"
    return (
        f'<h2>Streams over time</h2><svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{title}">'
        f"<title>{title}</title>{''.join(parts)}</svg>"
        '<p class="muted">By time of recording. Pale: fewer messages '
        "than the median interval promises. Blank: none.</p>"
    )


def _short(stream: Stream) -> str:
    return escape(stream.topic if len(stream.topic) <= 46 else "..." + stream.topic[-43:])


def _runs(presence: Sequence[float]) -> list[tuple[int, int, float]]:
    """Neighbouring cells of about the same share as (begin, end, share); empty ones are left out."""
    levels = [round(4 * share) if share > 0 else -1 for share in presence]
    begins = [0, *(k for k in range(1, len(levels)) if levels[k] != levels[k - 1]), len(levels)]
    runs = pairwise(begins)
    return [(begin, end, levels[begin] / 4) for begin, end in runs if levels[begin] >= 0]


def _table(inspection: Inspection) -> str:
    heads = ("messages", "rate [Hz]", "longest interval [s]", "gaps", "dropped", "log - stamp [ms]", "range [ms]")
    head = "".join(f'<th class="number">{name}</th>' for name in heads)
    rows = "".join(_table_row(stream) for stream in inspection.streams.values())
    return (
        f'<h2>Topics</h2><div class="scroll tall"><table><thead><tr><th>topic</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        '<p class="muted">Log - stamp: time of recording minus header stamp, median; what differs between two streams '
        "by more than their transport is the difference of two clocks. Range: smallest to largest.</p>"
    )


def _table_row(stream: Stream) -> str:
    skew = stream.skew
    numbers = (
        f"{stream.count}",
        f"{stream.rate_hz:.2f}" if stream.count > 1 else "",
        f"{stream.longest_s:.3f}" if stream.count > 1 else "",
        f"{stream.gap_count}",
        f"{stream.dropped}",
        f"{1e3 * skew.median_s:.1f}" if skew else "",
        f"{1e3 * skew.lowest_s:.1f} to {1e3 * skew.highest_s:.1f}" if skew else "",
    )
    cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
    kinds = ", ".join(kind for kind, _ in stream.sizes)
    what = escape(f"{stream.msgtype.replace('/msg/', '/')} {kinds}".strip())
    return f'<tr><td>{escape(stream.topic)}<br><span class="muted">{what}</span></td>{cells}</tr>'


def _joints(inspection: Inspection, robot: RobotSpec | None) -> str:
    limits = {joint.name: joint for joint in robot.joints} if robot else {}
    tables = "".join(
        f'<p class="muted">{escape(topic)}</p><div class="scroll tall"><table><tbody>'
        f"{''.join(_joint_row(joint, limits.get(joint.name)) for joint in joints)}</tbody></table></div>"
        for topic, joints in inspection.joints.items()
    )
    if not tables:
        return ""
    colours = "Grey: the limits of the robot description; blue: what was seen; red: beyond a limit. " if robot else ""
    meaning = f'<p class="muted">{colours}Positions as in the bag, [rad], [m] or 0 to 1; their speed per s.</p>'
    return f"<h2>Joint ranges</h2>{tables}{meaning}"


def _joint_row(joint: JointRange, limit: Joint | None) -> str:
    known = np.isfinite(joint.lower)
    seen = f"{joint.lower:.3f} to {joint.upper:.3f}" if known else "no finite value"
    allowed = f"{limit.lower:.3f} to {limit.upper:.3f}" if limit else "no limits known"
    bar = _range_bar(joint, limit) if known else ""
    speed = f"up to {joint.speed:.2f} per s" if joint.speed else ""
    return (
        f'<tr><td>{escape(joint.name)}</td><td style="width:44%">{bar}</td><td class="number">{seen}</td>'
        f'<td class="number muted">{allowed}</td><td class="number muted">{speed}</td></tr>'
    )


def _range_bar(joint: JointRange, limit: Joint | None) -> str:
    low = min(joint.lower, limit.lower) if limit else joint.lower
    high = max(joint.upper, limit.upper) if limit else joint.upper
    span = max(high - low, 1e-9)

    def part(begin: float, end: float, kind: str) -> str:
        x, width = 400 * (begin - low) / span, max(400 * (end - begin) / span, 2.0)
        return f'<rect class="{kind}" x="{x:.1f}" y="3" width="{width:.1f}" height="8" rx="3"/>' if end >= begin else ""

    parts = [part(limit.lower, limit.upper, "track")] if limit else []
    parts.append(part(joint.lower, joint.upper, "fill-seen"))
    if limit and joint.lower < limit.lower:
        parts.append(part(joint.lower, limit.lower, "fill-over"))
    if limit and joint.upper > limit.upper:
        parts.append(part(limit.upper, joint.upper, "fill-over"))
    return f'<svg viewBox="0 0 402 14" role="img" aria-label="range of {escape(joint.name)}">{"".join(parts)}</svg>'


def _proposal(proposal: str) -> str:
    if not proposal:
        return ""
    return f"<h2>Proposed robot description</h2><p>Also in robot.yaml.</p><pre>{escape(proposal)}</pre>"


def _stream_dict(stream: Stream) -> dict[str, Any]:
    entry = {
        name: getattr(stream, name)
        for name in ("msgtype", "count", "rate_hz", "period_s", "longest_s", "dropped", "unstamped", "backwards")
    }
    skew = stream.skew
    return entry | {
        "duplicates": stream.duplicates,
        "gap_count": stream.gap_count,
        "gaps": [[gap.start_ns, gap.duration_ns] for gap in stream.gaps],
        "skew_s": [skew.median_s, skew.lowest_s, skew.highest_s] if skew else None,
        "sizes": dict(stream.sizes),
    }


def _joint_dict(joint: JointRange) -> dict[str, Any]:
    known = bool(np.isfinite(joint.lower))
    return {
        "name": joint.name,
        "range": [joint.lower, joint.upper] if known else None,
        "speed": joint.speed,
        "not_finite": joint.not_finite,
    }
