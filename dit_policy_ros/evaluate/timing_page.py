"""The tables of a report's page about smoothness, stages and incidents."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from dit_policy_ros.evaluate.report import Report
from dit_policy_ros.evaluate.smoothness import SEAM_JUMP, STEP_BACK

SMOOTHNESS: Mapping[str, tuple[str, str]] = {
    "seam_position": (SEAM_JUMP, "[rad]"),
    "seam_velocity": ("change of velocity at a seam", "[rad/s]"),
    "momentum_cosine": ("cosine of the velocities before and after a seam", ""),
    "seams_backwards": (f"share of {STEP_BACK}", ""),
    "chunk_step": ("largest motion of one control step in a chunk", "[rad]"),
    "chunk_second_difference_mean": ("mean absolute second difference in chunks", "[rad]"),
    "chunk_second_difference": ("mean second difference in a chunk", "[rad]"),
    "commanded_second_difference": ("second difference of what was commanded", "[rad]"),
    "spectral_arc_length": ("spectral arc length", ""),
    "unplanned_share": ("share of time without a fresh chunk", ""),
    "chunk_age_s": ("age of the observation behind the chunk that acts", "[s]"),
    "delay_consumed_s": ("delay really consumed", "[s]"),
}
"""Key of ``smoothness.summary`` to its words and unit."""


def timing_tables(report: Report) -> str:
    """Returns the tables of what is known."""
    metrics = report.to_dict()["metrics"]
    smooth = {f"{words} {unit}".strip(): metrics["smoothness"].get(key) for key, (words, unit) in SMOOTHNESS.items()}
    tables = (
        ("Smoothness", _table("quantity", smooth)),
        ("Stages of the nodes [ms]", _table("stage", metrics["stages_ms"])),
        ("Incidents", _table("what", {name: float(count) for name, count in metrics["incidents"].items()})),
    )
    return "".join(f"<h2>{title}</h2>{table}" for title, table in tables if table)


def _table(first: str, rows: Mapping[str, object]) -> str:
    known = {name: entry for name, entry in rows.items() if entry is not None and entry != {}}
    if not known:
        return ""
    body = "".join(
        f'<tr><td class="wide">{escape(name)}</td><td class="number">{escape(_cell(entry))}</td></tr>'
        for name, entry in known.items()
    )
    head = f"<thead><tr><th>{first}</th><th></th></tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _cell(entry: object) -> str:
    if isinstance(entry, Mapping):
        return ", ".join(f"{_percentile(name)} {value:.3g}" for name, value in entry.items())
    return f"{entry:.4g}"


def _percentile(name: str) -> str:
    words = {"p50": "median", "p100": "largest"}
    return words.get(name, f"{name[1:]} %" if name.startswith("p") else name)
