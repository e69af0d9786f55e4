"""Many evaluations side by side: methods, delays, and what each of them gives on the same seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.evaluate.document import json_text, write_whole
from dit_policy_ros.evaluate.record import EpisodeRecord
from dit_policy_ros.evaluate.report import wait_to_dict
from dit_policy_ros.evaluate.smoothness import Smoothness, summary
from dit_policy_ros.evaluate.statistics import Interval, bootstrap, mcnemar, wilson
from dit_policy_ros.runtime.context_watch import wait_of

CONTEXT_DELAYS_S = (0.0, 0.1, 0.3, 0.5, 0.75, 1.0)
ACTION_DELAYS_S = (0.0, 0.06, 0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Condition:
    """What one point is measured under."""

    method: str
    """Continuity method; empty for the policy's own."""
    context_delay_s: float
    action_delay_s: float
    pattern: str = "constant"


BOTH, CONTEXT, ACTION = AXES = ("both", "context", "action")


def curves(methods: Sequence[str], at: Condition, axis: str = BOTH) -> tuple[Condition, ...]:
    """Returns the points of the curves for each method: over the context delay, and over the action delay.

    Args:
        at: the delays that the other curve keeps; its pattern holds for all.
        axis: 'context' or 'action' for one of the curves.
    """
    conditions: dict[Condition, None] = {}
    for method in methods:
        here = replace(at, method=method)
        if axis != ACTION:
            conditions.update({replace(here, context_delay_s=delay_s): None for delay_s in CONTEXT_DELAYS_S})
        if axis != CONTEXT:
            conditions.update({replace(here, action_delay_s=delay_s): None for delay_s in ACTION_DELAYS_S})
    return tuple(conditions)


@dataclass(frozen=True)
class Point:
    """One condition and what came out."""

    condition: Condition
    seeds: tuple[int, ...]
    strict: tuple[bool, ...]
    """Of each seed."""
    sticky: tuple[bool, ...]
    metrics: Mapping[str, Any]
    """``smoothness.summary`` with context age, limiter hits, refusals and incidents."""
    intervals: Mapping[str, Sequence[float]]
    """Name of a figure to its 95 % bootstrap interval over episodes."""

    @property
    def successes(self) -> int:
        """Strict successes."""
        return sum(self.strict)

    @property
    def interval(self) -> Interval:
        """95 % interval of the strict success rate."""
        return wilson(self.successes, len(self.seeds))

    def to_dict(self) -> dict[str, Any]:
        """Returns what JSON holds; ``from_dict`` is the inverse."""
        rate = {"success_rate": self.successes / len(self.seeds), "ci95": [self.interval.lower, self.interval.upper]}
        return {
            **asdict(self.condition),
            **rate,
            "seeds": list(self.seeds),
            "strict": list(self.strict),
            "sticky": list(self.sticky),
            "metrics": dict(self.metrics),
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Point:
        """Reads what ``to_dict`` gave."""
        condition = Condition(*(data[name] for name in ("method", "context_delay_s", "action_delay_s", "pattern")))
        outcomes = (tuple(data[name]) for name in ("seeds", "strict", "sticky"))
        return cls(condition, *outcomes, data["metrics"], data["intervals"])


FIGURES: Mapping[str, Callable[[Sequence[Smoothness]], float]] = {
    "seam_position_p99": lambda known: _percentile(known, "seam_positions", 99.0),
    "seam_velocity_p99": lambda known: _percentile(known, "seam_velocities", 99.0),
    "commanded_second_difference_p99": lambda known: _percentile(known, "commanded_second_differences", 99.0),
    "unplanned_share": lambda known: _mean(known, "unplanned"),
}
"""Figures with an interval, by name."""


def point_of(condition: Condition, records: Sequence[EpisodeRecord]) -> Point:
    """Returns the point that some episodes make, in the order of their seeds.

    Raises:
        ConfigError: there are none.
    """
    if not records:
        raise ConfigError("A point of a sweep needs at least one episode; check --episodes.")
    records = sorted(records, key=lambda record: record.seed)
    smooth = [record.smoothness for record in records if record.smoothness is not None]
    ages = np.concatenate([record.context_ages_s for record in records])
    wait = wait_of([record.context_wait for record in records if record.context_wait is not None])
    counts = {
        name: dict(sorted(sum((Counter(getattr(record, name)) for record in records), Counter()).items()))
        for name in ("refusals", "starved", "incidents")
    }
    metrics = {
        **summary(smooth),
        "context_age_s": float(np.nanmean(ages)) if np.isfinite(ages).any() else None,
        "context_wait": wait_to_dict(wait),
        "position_hits": sum(record.position_hits for record in records),
        "velocity_hits": sum(record.velocity_hits for record in records),
        **counts,
    }
    intervals = {name: bootstrap(smooth, figure) for name, figure in FIGURES.items()}
    return Point(
        condition,
        tuple(record.seed for record in records),
        tuple(bool(record.strict) for record in records),
        tuple(bool(record.sticky) for record in records),
        metrics,
        {name: [ends.lower, ends.upper] for name, ends in intervals.items() if np.isfinite(ends.lower)},
    )


@dataclass(frozen=True)
class Sweep:
    """All points of one world, policy and set of seeds."""

    world: str
    policy: str
    policy_sha256: str
    points: tuple[Point, ...]
    command: str
    created: str
    versions: Mapping[str, str]

    def against(self, point: Point) -> float | None:
        """Returns the p-value of McNemar's test against the policy's own or first method at the same delays."""
        same = replace(point.condition, method=self.points[0].condition.method)
        reference = next((other for other in self.points if other.condition == same), None)
        if reference is None or reference is point or reference.seeds != point.seeds:
            return None
        return mcnemar(reference.strict, point.strict).p_value

    def to_dict(self) -> dict[str, Any]:
        """Returns what ``report.json`` holds."""
        return {
            "kind": "sweep",
            "world": self.world,
            "policy": {"path": self.policy, "sha256": self.policy_sha256},
            "points": [{**point.to_dict(), "p_value": self.against(point)} for point in self.points],
            "command": self.command,
            "versions": dict(self.versions),
            "created": self.created,
        }


def write_json(sweep: Sweep, directory: Path) -> Path:
    """Writes ``report.json`` and returns its path; an older one is replaced in one step."""
    return write_whole(directory / "report.json", json_text(sweep.to_dict()))


def _pooled(known: Sequence[Smoothness], name: str) -> np.ndarray:
    parts = [getattr(episode, name).reshape(-1) for episode in known]
    values = np.concatenate(parts) if parts else np.zeros(0)
    return values[np.isfinite(values)]


def _percentile(known: Sequence[Smoothness], name: str, percent: float) -> float:
    values = _pooled(known, name)
    return float(np.percentile(values, percent)) if len(values) else float("nan")


def _mean(known: Sequence[Smoothness], name: str) -> float:
    values = _pooled(known, name)
    return float(values.mean()) if len(values) else float("nan")
