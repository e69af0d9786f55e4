"""The motion nearest to wanted control points among those inside the limits, by alternating projections.

In the control points of a uniform cubic B-spline every limit is a bound on a finite difference: exact for acceleration
and jerk, sufficient for position and velocity. That is a quadratic program with the same matrix for every joint; it is
solved for all of them at once by the alternating direction method of multipliers (Boyd et al., "Distributed
Optimization and Statistical Learning via the Alternating Direction Method of Multipliers", 2011, section 5). A dozen
rounds bring it close to the bounds, so it aims a little inside, and whoever uses the result checks it.

What is bounded is kept in one table of rows: the points, the first three of which the start fixes, and below them their
first, second and third differences, those among fixed points included, for N free points 4 N + 6 rows in all.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from dit_policy_ros.actions.limits import JointLimits
from dit_policy_ros.actions.motion import Motion, from_control_points

_INSIDE = 0.97
"""Of velocity, acceleration and jerk limits is aimed at."""
_SLACK = 0.0015
"""Share of the range between the position limits that is kept from either."""
_LOOK_EVERY = 4
_TAIL_WEIGHT = 0.02
"""How much being where the wanted points end matters after their end, compared to them."""
_PENALTIES = (1.0, 10.0, 30.0, 30.0)
"""For position, first, second and third difference."""
_OVERSHOOT = 1.8
"""Over-relaxation of the projections; 1.5 to 1.8 is what Boyd et al. recommend."""
_FIXED = 3


def nearest_motion(limits: JointLimits, start: Motion, wanted: np.ndarray, tail: int, rounds: int) -> Motion:
    """Returns a motion from the start close to wanted control points; it may exceed limits a little.

    Args:
        start: one knot, (1, J).
        wanted: (N, J) control points, the first being the one after those that the start fixes.
        tail: steps after the wanted points in which there is time to come to rest.
        rounds: at most, of joints that exceed a limit yet; while most do, of all joints.
    """
    points = np.concatenate((_fixed_points(start), wanted, np.repeat(wanted[-1:], tail, axis=0)))
    count = len(points) - _FIXED
    pull, gather = _system(len(wanted), tail)
    pulled = pull @ points
    aims = _bounds(limits, start.step_s, count, _INSIDE, _SLACK)
    bounds = _bounds(limits, start.step_s, count, 1.0, 0.5 * _SLACK)
    values = np.empty_like(aims[0])
    values[: len(points)] = points
    for minuend, subtrahend, difference in _differences(values, count):
        np.subtract(minuend, subtrahend, out=difference)
    nearest = np.minimum(np.maximum(values, aims[0]), aims[1])
    # The projection and its dual together; at first there is no dual.
    ahead, joints = nearest.copy(), np.arange(points.shape[1])
    while rounds > 0:
        _rounds(min(rounds, _LOOK_EVERY), values, nearest, ahead, (gather, pulled), aims)
        rounds -= _LOOK_EVERY
        points[:, joints] = values[: len(points)]
        outside = np.flatnonzero(((values > bounds[1]) | (values < bounds[0])).any(axis=0))
        if not len(outside):
            break
        if 2 * len(outside) <= len(joints):
            joints = joints[outside]
            values, nearest, ahead, pulled = (part.take(outside, axis=1) for part in (values, nearest, ahead, pulled))
            aims, bounds = ([part.take(outside, axis=1) for part in pair] for pair in (aims, bounds))
    motion = from_control_points(points, start.step_s)
    for part, exact in (
        (motion.positions, start.positions),
        (motion.velocities, start.velocities),
        (motion.accelerations, start.accelerations),
    ):
        part[0] = exact[0]
    return motion


def _rounds(rounds: int, values, nearest, ahead, system, aims) -> None:
    """Carries out some rounds, in place.

    Args:
        values: rows of the free points.
        nearest: their projection.
        ahead: the projection and its dual together.
        system: what ``_system`` gathers, and what pulls.
        aims: the lowest and the highest of every row.
    """
    gather, pulled = system
    count = len(pulled)
    free, spare, differences = values[_FIXED : _FIXED + count], np.empty_like(values), _differences(values, count)
    for _ in range(rounds):
        np.subtract(nearest, ahead, out=spare)
        spare += nearest
        np.matmul(gather, spare, out=free)
        free += pulled
        for minuend, subtrahend, difference in differences:
            np.subtract(minuend, subtrahend, out=difference)
        np.subtract(values, nearest, out=spare)
        spare *= _OVERSHOOT
        ahead += spare
        np.maximum(ahead, aims[0], out=nearest)
        np.minimum(nearest, aims[1], out=nearest)


def _bounds(limits: JointLimits, h: float, count: int, share: float, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lowest and the highest of every row, (4 * count + 6, J); what is fixed is not bounded.

    Args:
        share: of the limits on differences.
        margin: kept from the position limits, as a share of the range between them.
    """
    highest = np.empty((4 * count + 6, len(limits.lower)))
    lowest = np.empty_like(highest)
    room = margin * (limits.upper - limits.lower)
    rows = 0
    for order, limit in enumerate((limits.upper - room, limits.velocity, limits.acceleration, limits.jerk)):
        free = rows + _FIXED - order
        highest[rows:free] = np.inf
        rows = free + count
        highest[free:rows] = limit if order == 0 else (share * h**order) * limit
    np.negative(highest, out=lowest)
    lowest[_FIXED : _FIXED + count] = limits.lower + room
    return lowest, highest


def _fixed_points(start: Motion) -> np.ndarray:
    """(3, J) the control points that a state fixes."""
    h, v, a = start.step_s, start.velocities[0], start.accelerations[0]
    middle = start.positions[0] - a * h * h / 6.0
    return np.stack((middle - v * h + a * h * h / 2.0, middle, middle + v * h + a * h * h / 2.0))


def _differences(values: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns for each of the three differences what is to be subtracted from what, and where it belongs."""
    views, begin = [], 0
    for length in (count + 3, count + 2, count + 1):
        end = begin + length
        views.append((values[begin + 1 : end], values[begin : end - 1], values[end : end + length - 1]))
        begin = end
    return views


@lru_cache(maxsize=64)
def _system(count: int, tail: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the rounds for N = ``count + tail`` free points need.

    The free points of a round are ``pull @ (fixed and wanted points) + gather @ rows``, (N, 3 + N) and (N, 4 N + 6).
    """
    total = count + tail
    weights = np.concatenate((np.ones(count), np.full(tail, _TAIL_WEIGHT)))
    orders = [np.eye(total + _FIXED)]
    while len(orders) < len(_PENALTIES):
        orders.append(np.diff(orders[-1], axis=0))
    matrix = np.diag(weights)
    weighted = []
    for index, (penalty, order) in enumerate(zip(_PENALTIES, orders, strict=True)):
        bounded = order.copy()
        # Rows among fixed points are not bounded.
        bounded[: _FIXED - index] = 0.0
        matrix = matrix + penalty * bounded[:, _FIXED:].T @ bounded[:, _FIXED:]
        weighted.append(penalty * bounded[:, _FIXED:].T)
    inverse = np.linalg.inv(matrix)
    gather = inverse @ np.concatenate(weighted, axis=1)
    onto = np.concatenate([order[:, :_FIXED] for order in orders])
    return np.concatenate((-gather @ onto, inverse * weights), axis=1), gather
