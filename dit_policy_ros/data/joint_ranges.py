"""What values named joints took in a stream of JointState or JointTrajectory messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.types import NS_PER_S

_LEAST_INTERVAL_NS = 1_000_000
"""Closer samples say nothing of a speed."""


@dataclass(frozen=True)
class JointRange:
    """One joint on one topic."""

    name: str
    lower: float
    """Smallest finite value; NaN where there is none. [rad], [m], or 0..1."""
    upper: float
    speed: float
    """Largest difference of two samples over their distance in time; 0 for trajectories."""
    not_finite: int
    """Samples that are NaN or infinite."""


class RangeBuilder:
    """Collects the values of one topic in constant memory."""

    def __init__(self) -> None:
        self.malformed = 0
        """Messages whose names and positions do not fit together."""
        self._names: dict[str, int] = {}
        self._lower, self._upper = np.empty(0), np.empty(0)
        self._speed = np.empty(0)
        self._not_finite = np.empty(0, dtype=np.int64)
        self._last = np.empty(0)
        self._last_ns = np.empty(0, dtype=np.int64)

    def add(self, time_ns: int, names: Sequence[str], positions: np.ndarray) -> None:
        """Adds (len(names),) positions of one instant, or (K, len(names)) waypoints without speeds."""
        rows = np.atleast_2d(np.asarray(positions, dtype=np.float64))
        if rows.shape[1] != len(names) or len(set(names)) != len(names):
            self.malformed += 1
            return
        index = self._indices(names)
        finite = np.isfinite(rows)
        self._not_finite[index] += (~finite).sum(axis=0)
        self._lower[index] = np.fmin(self._lower[index], np.where(finite, rows, np.inf).min(axis=0))
        self._upper[index] = np.fmax(self._upper[index], np.where(finite, rows, -np.inf).max(axis=0))
        if np.ndim(positions) == 1:
            self._add_speed(time_ns, index, rows[0])

    def build(self) -> tuple[JointRange, ...]:
        """Returns the joints in the order they were first named."""
        known = np.isfinite(self._lower)
        lower, upper = np.where(known, self._lower, np.nan), np.where(known, self._upper, np.nan)
        return tuple(
            JointRange(name, float(lower[k]), float(upper[k]), float(self._speed[k]), int(self._not_finite[k]))
            for name, k in self._names.items()
        )

    def _add_speed(self, time_ns: int, index: list[int], row: np.ndarray) -> None:
        passed_ns = time_ns - self._last_ns[index]
        usable = passed_ns >= _LEAST_INTERVAL_NS
        moved = np.abs(row - self._last[index]) / np.where(usable, passed_ns, 1) * NS_PER_S
        self._speed[index] = np.fmax(self._speed[index], np.where(usable & np.isfinite(moved), moved, 0.0))
        self._last[index], self._last_ns[index] = row, time_ns

    def _indices(self, names: Sequence[str]) -> list[int]:
        for name in names:
            if name not in self._names:
                self._names[name] = len(self._names)
                self._lower, self._upper = np.append(self._lower, np.inf), np.append(self._upper, -np.inf)
                self._speed, self._not_finite = np.append(self._speed, 0.0), np.append(self._not_finite, 0)
                self._last, self._last_ns = np.append(self._last, np.nan), np.append(self._last_ns, 0)
        return [self._names[name] for name in names]
