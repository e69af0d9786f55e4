"""Waypoints that are too far apart for the joints made into ones that are not, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dit_policy_ros.actions.limits import JointLimits
from dit_policy_ros.actions.motion import Motion

_SPEED = 0.93
"""Of the speed limit; the rest is for catching up."""
_SHARE = 0.95
"""Of acceleration and jerk limits."""
_LONGEST = 32
"""Steps of an average."""
_CLOSE = 0.5
"""Of the way at the acceleration limit in one step, squared."""


@dataclass(frozen=True)
class Reachable:
    """Control points that keep the speed, acceleration and jerk limits."""

    points: np.ndarray
    """(N, J), the first two steps after the start, where it belongs as a control point."""
    late: np.ndarray
    """(J,) int64, steps that are missing in the averages at the end."""


def reachable_points(limits: JointLimits, start: Motion, targets: np.ndarray) -> Reachable:
    """Returns control points close to targets, (N, J), that keep the speed, acceleration and jerk limits.

    A moving average over m steps turns changes of speed into accelerations of a share 1 / m of them, and another one
    after it does so for the jerk (Biagiotti and Melchiorri, "FIR filters for online trajectory planning with time- and
    frequency-domain specifications", 2012). Their delay is made up for by what they are given.

    Args:
        start: one knot, (1, J); before it the joints are taken to have moved at its speed.
        targets: of the steps after the start.
    """
    stride, drift = _SPEED * start.step_s * limits.velocity, start.step_s * start.velocities
    steps = np.arange(1, len(targets) + 1)[:, None]
    reach = steps * stride
    points = _no_farther_apart(reach, start.positions, targets)
    late = sum(_widths(limits, start, start.positions, points)) - 2
    # From two steps after the start on, and as far ahead as the averages are late.
    ahead = _picked(points, np.minimum(steps + late // 2, len(points) - 1))
    begin = start.positions + (1.0 + 0.5 * late) * drift
    points = np.minimum(np.maximum(ahead, begin - reach), begin + reach)
    counts = _widths(limits, start, begin, points)
    before = begin + np.arange(3 - sum(count.max() for count in counts), 1)[:, None] * drift
    points = np.concatenate((before, points))
    for count in counts:
        points = _averaged(points, count)
    return Reachable(points, np.maximum(late, sum(counts) - 2))


def caught_up(limits: JointLimits, step_s: float, reachable: Reachable, exact: np.ndarray) -> np.ndarray:
    """Returns the reachable points, and exact control points, (N, J), from where the limits allow to go on with them.

    Averages are a little off where the way is curved, and slow down towards its end.
    """
    near = np.abs(reachable.points - exact) <= _CLOSE * step_s**2 * limits.acceleration
    # The last averages know too little of the way to tell.
    last = len(exact) - 1 - reachable.late
    near = _picked(near, np.minimum(np.arange(len(exact))[:, None], np.maximum(last, 0))) & (last >= 0)
    return np.where(np.logical_and.accumulate(near[::-1])[::-1], exact, reachable.points)


def _widths(limits: JointLimits, start: Motion, begin: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns over how many steps to average for the acceleration and for the jerk limit, (J,) each, at least 1.

    Args:
        begin: (1, J), the step before the points.
    """
    h, drift = start.step_s, start.step_s * start.velocities[0]
    strides = np.concatenate((drift[None], points[:1] - begin, points[1:] - points[:-1]))
    changes = strides.max(axis=0) - strides.min(axis=0)
    widths = np.array((changes / (h * h), 2.0 / h * limits.acceleration)) / (
        _SHARE * np.array((limits.acceleration, limits.jerk))
    )
    return tuple(np.minimum(np.maximum(np.ceil(widths), 1), _LONGEST).astype(np.int64))


def _no_farther_apart(reach: np.ndarray, begin: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the nearest waypoints that are no farther apart, (N, J), than the rows of ``reach``, (N, J), are.

    Nearest by the largest distance: halfway between the lowest and the highest that are no farther apart and nowhere
    above, or below, all targets (McShane, "Extension of Range of Functions", 1934).
    """
    behind, ahead = targets - reach, targets + reach
    lowest = np.minimum(np.minimum.accumulate(behind) + reach, np.minimum.accumulate(ahead[::-1])[::-1] - reach)
    highest = np.maximum(np.maximum.accumulate(ahead) - reach, np.maximum.accumulate(behind[::-1])[::-1] + reach)
    return np.minimum(np.maximum(0.5 * (lowest + highest), begin - reach), begin + reach)


def _averaged(points: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the mean of each point and those before it, of ``counts``, (J,), in all, where there are as many."""
    sums = np.zeros((len(points) + 1, points.shape[1]))
    np.cumsum(points, axis=0, out=sums[1:])
    first = int(counts.max())
    return (sums[first:] - _picked(sums, np.arange(first, len(sums))[:, None] - counts)) / counts


def _picked(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns ``table[rows[n, j], j]``, of the shape of rows, (N, J)."""
    return table.take(rows * table.shape[1] + np.arange(table.shape[1]))
