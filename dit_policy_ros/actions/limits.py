"""Clamps a series of waypoints to what each joint may do."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dit_policy_ros.types import NS_PER_S

# Differences of this relative size are rounding, not motion.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class JointLimits:
    """Per-joint limits, (J,) each."""

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    """Largest speed between two waypoints, unit of the position per second."""

    def including(self, position: np.ndarray) -> JointLimits:
        """Returns limits widened so that ``position``, (J,), lies inside."""
        return replace(self, lower=np.minimum(self.lower, position), upper=np.maximum(self.upper, position))


@dataclass(frozen=True)
class LimitedWaypoints:
    """Waypoints within limits, and how often each limit had to act."""

    positions: np.ndarray
    """(K, J)."""
    position_hits: np.ndarray
    """(J,) int64, waypoints whose position was clamped."""
    velocity_hits: np.ndarray
    """(J,) int64, waypoints whose distance from the one before was clamped."""


def limit_waypoints(
    limits: JointLimits, start_ns: int, start: np.ndarray, times_ns: np.ndarray, positions: np.ndarray
) -> LimitedWaypoints:
    """Clamps waypoints to the position limits, and each step between them to the speed limit.

    From a start outside the position limits the way back is taken at no more than the speed limit, so the first
    waypoints may still lie outside, though never farther than the start.

    Args:
        start: (J,) position at ``start_ns``, before the first waypoint.
        times_ns: (K,) strictly increasing.
        positions: (K, J).
    """
    targets = np.clip(positions, limits.lower, limits.upper)
    position_hits = np.count_nonzero(targets != positions, axis=0)
    intervals_s = np.diff(times_ns, prepend=start_ns) / NS_PER_S
    reach = intervals_s[:, None] * limits.velocity
    too_far = (np.abs(np.diff(targets, axis=0, prepend=start[None])) > reach * (1.0 + _ROUNDING)).any(axis=1)
    if not too_far.any():
        return LimitedWaypoints(targets, position_hits, np.zeros_like(position_hits))
    limited = targets.copy()
    previous, behind = start, False
    for k in range(int(np.argmax(too_far)), len(targets)):
        if behind or too_far[k]:
            previous = limited[k - 1] if k else start
            limited[k] = np.clip(targets[k], previous - reach[k], previous + reach[k])
            behind = bool((limited[k] != targets[k]).any())
    return LimitedWaypoints(limited, position_hits, np.count_nonzero(limited != targets, axis=0))
