"""An independent judge of commands: knows the joints' limits and what a controller does with waypoints, nothing else.

It shares no code with the executor. Between two waypoints a controller follows the cubic through their positions and
velocities; before the first, the cubic from where it is when the message arrives.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

TOLERANCE = 1e-6
"""Excess that counts as rounding, relative to the limit."""
_DENSE = np.linspace(0.0, 1.0, 9)


@dataclass(frozen=True)
class Bounds:
    """Limits of J joints, (J,) each."""

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray


@dataclass
class MotionJudge:
    """Follows commands as a controller does, and counts what exceeds the limits."""

    bounds: Bounds
    position: np.ndarray
    """(J,) where the arms are; that may be outside their limits, and they must never be farther out."""
    velocity: np.ndarray = field(init=False)
    now_ns: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    """Number of joints and cubics, by the limit that they exceed."""
    worst: dict[str, float] = field(default_factory=dict)
    """Largest share of each limit that was reached."""

    def __post_init__(self) -> None:
        self.velocity = np.zeros_like(self.position)
        self._acceleration = np.zeros_like(self.position)
        self._blur = np.zeros_like(self.position)
        self._knots: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._lower = np.minimum(self.bounds.lower, self.position)
        self._upper = np.maximum(self.bounds.upper, self.position)

    def command(self, arrives_ns: int, times_ns: np.ndarray, positions: np.ndarray, velocities: np.ndarray) -> None:
        """Takes waypoints, (K,), (K, J), (K, J), that replace all earlier ones when they arrive."""
        self.follow(arrives_ns)
        ahead = times_ns > arrives_ns
        if not np.isfinite(positions).all() or not np.isfinite(velocities).all():
            self.violations["not finite"] += 1
            return
        if velocities[-1].any():
            self.violations["not at rest in the end"] += 1
        if not ahead.any():
            return
        self._knots = (times_ns[ahead], positions[ahead], velocities[ahead])

    def follow(self, until_ns: int) -> None:
        """Follows what was commanded up to an instant."""
        while self.now_ns < until_ns:
            if self._knots is None or not len(self._knots[0]):
                self._rest(until_ns)
                return
            times_ns, positions, velocities = self._knots
            end_ns = int(times_ns[0])
            length_s = (end_ns - self.now_ns) * 1e-9
            stop_ns = min(end_ns, until_ns)
            self._cubic(length_s, (stop_ns - self.now_ns) * 1e-9, positions[0], velocities[0])
            self.now_ns = stop_ns
            if stop_ns == end_ns:
                self.position, self.velocity = positions[0].copy(), velocities[0].copy()
                self._knots = (times_ns[1:], positions[1:], velocities[1:])

    def follow_to_rest(self) -> None:
        """Follows what was commanded to its end."""
        if self._knots is not None and len(self._knots[0]):
            self.follow(int(self._knots[0][-1]))
        self._rest(self.now_ns)

    def copy(self) -> MotionJudge:
        """Returns a judge in the same state with counters of its own."""
        other = MotionJudge(self.bounds, self.position.copy(), self.now_ns)
        other.velocity, other._acceleration = self.velocity.copy(), self._acceleration.copy()
        other._blur = self._blur
        other._knots, other._lower, other._upper = self._knots, self._lower, self._upper
        return other

    def _cubic(self, length_s: float, until_s: float, end: np.ndarray, end_velocity: np.ndarray) -> None:
        """Moves along one cubic of a length up to a time, and judges that part."""
        p, v, gap = self.position, self.velocity, end - self.position
        c2 = (3.0 * gap / length_s - 2.0 * v - end_velocity) / length_s
        c3 = (v + end_velocity - 2.0 * gap / length_s) / length_s**2
        t = (_DENSE * until_s)[:, None]
        positions = p + t * (v + t * (c2 + t * c3))
        velocities = v + t * (2.0 * c2 + t * 3.0 * c3)
        accelerations = 2.0 * c2 + 6.0 * t * c3
        # What the arithmetic of a cubic this short can resolve.
        fuzzy = 1e-14 * (1.0 + np.abs(end))
        outside = np.maximum(positions - self._upper, self._lower - positions).max(axis=0)
        self._judge("position", outside, 0.0, TOLERANCE)
        self._judge("velocity", np.abs(velocities).max(axis=0), self.bounds.velocity, fuzzy / length_s)
        self._judge("acceleration", np.abs(accelerations).max(axis=0), self.bounds.acceleration, fuzzy / length_s**2)
        self._judge("jerk", np.abs(6.0 * c3), self.bounds.jerk, 10.0 * fuzzy / length_s**3)
        jump = np.abs(accelerations[0] - self._acceleration)
        blur = 10.0 * fuzzy / length_s**2
        self._judge("jerk", jump, 0.0, TOLERANCE * self.bounds.acceleration + blur + self._blur)
        self._blur = blur
        self.position, self.velocity, self._acceleration = positions[-1], velocities[-1], accelerations[-1]

    def _rest(self, until_ns: int) -> None:
        """Stands still; with any speed or acceleration left that would be a jump."""
        self._judge("jerk", np.abs(self._acceleration), 0.0, TOLERANCE * self.bounds.acceleration + self._blur)
        self._judge("jerk", np.abs(self.velocity), 0.0, np.full_like(self.velocity, 1e-12))
        self.velocity, self._acceleration = np.zeros_like(self.velocity), np.zeros_like(self.velocity)
        self.now_ns = max(self.now_ns, until_ns)

    def _judge(self, kind: str, value: np.ndarray, limit: np.ndarray | float, fuzzy: np.ndarray | float) -> None:
        bad = ~(value <= limit * (1.0 + TOLERANCE) + fuzzy)
        if bad.any():
            self.violations[kind] += int(np.count_nonzero(bad))
        if isinstance(limit, np.ndarray):
            self.worst[kind] = max(self.worst.get(kind, 0.0), float(((value - fuzzy) / limit).max()))
