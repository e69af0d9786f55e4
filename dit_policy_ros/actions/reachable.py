"""Waypoints that are too far apart for the joints made into ones that are not, in closed form."""

from __future__ import annotations

import numpy as np

from dit_policy_ros.actions.limits import JointLimits
from dit_policy_ros.actions.motion import Motion

_SPEED = 0.93
"""Of the speed limit; the rest is for catching up."""
_SHARE = 0.95
"""Of acceleration and jerk limits."""
_LONGEST = 32
"""Steps of an average."""


def reachable_points(limits: JointLimits, start: Motion, targets: np.ndarray) -> np.ndarray:
    """Returns control points close to targets, (N, J), that keep the speed, acceleration and jerk limits.

    A moving average over m steps turns changes of speed into accelerations of a share 1 / m of them, and another one
    after it does so for the jerk (Biagiotti and Melchiorri, "FIR filters for online trajectory planning with time- and
    frequency-domain specifications", 2012). Their delay is made up for by what they are given.

    Args:
        start: one knot, (1, J); before it the joints are taken to have moved at its speed.
        targets: of the steps after the start.

    Returns:
        (N, J), the first two steps after the start, where it belongs as a control point.
    """
    stride, drift = _SPEED * start.step_s * limits.velocity, start.step_s * start.velocities
    points = _no_farther_apart(stride, start.positions[0], targets)
    counts = _widths(limits, start, np.diff(points, axis=0, prepend=start.positions))
    # From two steps after the start on, and as far ahead as the averages are late.
    late, steps = counts[0] + counts[1] - 2, np.arange(1, len(points) + 1)[:, None]
    ahead = points[np.minimum(steps + late // 2, len(points) - 1), np.arange(points.shape[1])]
    begin = start.positions + (1.0 + 0.5 * late) * drift
    points = np.minimum(np.maximum(ahead, begin - steps * stride), begin + steps * stride)
    counts = _widths(limits, start, np.diff(points, axis=0, prepend=begin))
    before = begin + np.arange(3 - counts[0].max() - counts[1].max(), 1)[:, None] * drift
    points = np.concatenate((before, points))
    for count in counts:
        points = _averaged(points, count)
    return points


def _widths(limits: JointLimits, start: Motion, strides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns over how many steps to average for the acceleration and for the jerk limit, (J,) each, at least 1."""
    h, drift = start.step_s, start.step_s * start.velocities[0]
    changes = np.maximum(strides.max(axis=0), drift) - np.minimum(strides.min(axis=0), drift)
    widths = (changes / (_SHARE * limits.acceleration * h * h), 2.0 * limits.acceleration / (_SHARE * limits.jerk * h))
    return tuple(np.clip(np.ceil(width), 1, _LONGEST).astype(np.int64) for width in widths)


def _no_farther_apart(stride: np.ndarray, begin: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the nearest waypoints that are at most a stride apart, (N, J).

    Nearest by the largest distance: halfway between the lowest and the highest that are no farther apart and nowhere
    above, or below, all targets (McShane, "Extension of Range of Functions", 1934).
    """
    reach = np.arange(1, len(targets) + 1)[:, None] * stride
    behind, ahead = targets - reach, targets + reach
    lowest = np.minimum(np.minimum.accumulate(behind) + reach, np.minimum.accumulate(ahead[::-1])[::-1] - reach)
    highest = np.maximum(np.maximum.accumulate(ahead) - reach, np.maximum.accumulate(behind[::-1])[::-1] + reach)
    return np.minimum(np.maximum(0.5 * (lowest + highest), begin - reach), begin + reach)


def _averaged(points: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the mean of each point and those before it, of ``counts``, (J,), in all, where there are as many."""
    first = int(counts.max()) - 1
    sums = np.cumsum(np.concatenate((np.zeros_like(points[:1]), points)), axis=0)
    at, joint = np.arange(first + 1, len(points) + 1)[:, None], np.arange(points.shape[1])
    return (sums[at, joint] - sums[at - counts, joint]) / counts
