"""Motions made of cubics with continuous acceleration, and the exact extremes of their pieces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Motion:
    """States at knots ``step_s`` apart; between two knots the jerk is constant, so every piece is one cubic.

    A controller that joins the knots' positions and velocities by cubics follows it exactly.
    """

    step_s: float
    positions: np.ndarray
    """(K, J), or (R, K, J) where several are compared."""
    velocities: np.ndarray
    accelerations: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def jerks(self) -> np.ndarray:
        """(K - 1, J), one per piece."""
        return np.diff(self.accelerations, axis=-2) / self.step_s

    def __getitem__(self, rows: slice) -> Motion:
        return Motion(self.step_s, self.positions[rows], self.velocities[rows], self.accelerations[rows])

    def columns(self, which: np.ndarray) -> Motion:
        """Returns the motion of some joints, given by numbers or as (J,) bool."""
        if which.dtype == bool:
            which = np.flatnonzero(which)
        parts = (self.positions, self.velocities, self.accelerations)
        return Motion(self.step_s, *(part.take(which, axis=1) for part in parts))

    def level(self, index: int) -> Motion:
        """Returns one of several compared motions."""
        return Motion(self.step_s, self.positions[index], self.velocities[index], self.accelerations[index])

    def since(self, knot: int) -> Motion:
        """Returns the motions from a knot on."""
        rows = (..., slice(knot, None), slice(None))
        return Motion(self.step_s, self.positions[rows], self.velocities[rows], self.accelerations[rows])

    def followed_by(self, other: Motion) -> Motion:
        """Returns this motion and then the knots of another."""
        return Motion(
            self.step_s,
            np.concatenate((self.positions, other.positions)),
            np.concatenate((self.velocities, other.velocities)),
            np.concatenate((self.accelerations, other.accelerations)),
        )

    def trimmed(self) -> Motion:
        """Returns the motion up to the first knot from which all joints rest."""
        moving = np.flatnonzero((self.velocities != 0.0).any(axis=1) | (self.accelerations != 0.0).any(axis=1))
        return self[: moving[-1] + 2 if len(moving) else 1]

    def padded(self, count: int) -> Motion:
        """Returns ``count`` knots or more: after the last the joints rest."""
        missing = count - len(self)
        if missing <= 0:
            return self
        rest = np.zeros((missing, self.positions.shape[1]))
        return Motion(
            self.step_s,
            np.concatenate((self.positions, rest + self.positions[-1])),
            np.concatenate((self.velocities, rest)),
            np.concatenate((self.accelerations, rest)),
        )


def after(duration_s, position, velocity, acceleration, jerk) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns position, velocity and acceleration after a time of constant jerk; all arguments broadcast."""
    t = duration_s
    return (
        position + t * (velocity + t * (acceleration / 2.0 + t * jerk / 6.0)),
        velocity + t * (acceleration + t * jerk / 2.0),
        acceleration + t * jerk,
    )


def fastest(duration_s, velocity, acceleration, jerk) -> np.ndarray:
    """Returns the largest speed in pieces of constant jerk."""
    ends = np.maximum(np.abs(velocity), np.abs(velocity + duration_s * (acceleration + duration_s * jerk / 2.0)))
    turns = acceleration * (acceleration + duration_s * jerk) < 0.0
    inside = velocity - acceleration * acceleration / np.where(turns, 2.0 * jerk, 1.0)
    return np.where(turns, np.maximum(ends, np.abs(inside)), ends)


def reaches(duration_s, position, velocity, acceleration, jerk) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lowest and the highest position in pieces of constant jerk."""
    end = after(duration_s, position, velocity, acceleration, jerk)[0]
    lowest, highest = np.minimum(position, end), np.maximum(position, end)
    # Where the velocity is zero: the two roots of a parabola, in the form that loses no digits.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        root = np.sqrt(acceleration * acceleration - 2.0 * jerk * velocity)
        sum_ = -(acceleration + np.copysign(root, acceleration))
        instants = (sum_ / jerk, 2.0 * velocity / sum_)
    for instant in instants:
        inside = (instant > 0.0) & (instant < duration_s)
        turning = after(np.where(inside, instant, 0.0), position, velocity, acceleration, jerk)[0]
        lowest, highest = np.minimum(lowest, turning), np.maximum(highest, turning)
    return lowest, highest


def through(waypoints: np.ndarray, step_s: float) -> Motion:
    """Returns the cubic spline through evenly spaced waypoints, (K, J), whose first and last pieces have no jerk."""
    return from_control_points(control_points(waypoints), step_s, waypoints)


def control_points(waypoints: np.ndarray) -> np.ndarray:
    """Returns the control points of ``through``, (K + 2, J); two waypoints or one make a line."""
    if len(waypoints) >= 4:
        return _interpolation(len(waypoints)) @ waypoints
    slope = waypoints[min(1, len(waypoints) - 1)] - waypoints[0]
    before = waypoints[0] + slope * np.arange(-4, 0)[:, None]
    return control_points(np.concatenate((before, waypoints)))[4:]


def from_control_points(points: np.ndarray, step_s: float, positions: np.ndarray | None = None) -> Motion:
    """Returns the uniform cubic B-spline of control points, (..., K + 2, J), at its K knots.

    It stays inside the range of the points, and is nowhere faster than the fastest step between two of them (de Boor,
    "A Practical Guide to Splines", 1978).

    Args:
        positions: at the knots where they are known already.
    """
    before, here, behind = points[..., :-2, :], points[..., 1:-1, :], points[..., 2:, :]
    if positions is None:
        positions = (before + 4.0 * here + behind) / 6.0
    return Motion(step_s, positions, (behind - before) / (2.0 * step_s), (before - 2.0 * here + behind) / step_s**2)


@lru_cache(maxsize=64)
def _interpolation(count: int) -> np.ndarray:
    """(count + 2, count): waypoints to the control points of the spline through them."""
    system = np.zeros((count + 2, count + 2))
    knots = np.arange(count)
    system[0, :4] = system[-1, -4:] = (1.0, -3.0, 3.0, -1.0)
    for offset, weight in ((0, 1.0 / 6.0), (1, 4.0 / 6.0), (2, 1.0 / 6.0)):
        system[knots + 1, knots + offset] = weight
    return np.linalg.inv(system)[:, 1:-1]
