"""The motion nearest to wanted control points among those inside the limits, by alternating projections.

In the control points of a uniform cubic B-spline every limit is a bound on a finite difference: exact for acceleration
and jerk, sufficient for position and velocity. That is a quadratic program with the same matrix for every joint; it is
solved for all of them at once by the alternating direction method of multipliers (Boyd et al., "Distributed
Optimization and Statistical Learning via the Alternating Direction Method of Multipliers", 2011, section 5). A few
dozen rounds bring it close to the bounds, so it aims a little inside, and whoever uses the result checks it.
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
_LOOK_EVERY = 5
_TAIL_WEIGHT = 0.02
"""How much being where the wanted points end matters after their end, compared to them."""
_PENALTIES = (1.0, 3.0, 30.0, 30.0)
"""For position, first, second and third difference."""
_OVERSHOOT = 1.6
"""Over-relaxation of the projections; 1.5 to 1.8 is what Boyd et al. recommend."""


def nearest_motion(limits: JointLimits, start: Motion, wanted: np.ndarray, tail: int, rounds: int) -> Motion:
    """Returns a motion from the start close to wanted control points; it may exceed limits a little.

    Args:
        start: one knot, (1, J).
        wanted: (N, J) control points, the first being the one after those that the start fixes.
        tail: steps after the wanted points in which there is time to come to rest.
        rounds: at most; fewer where all limits are kept before.
    """
    fixed, wanted = _fixed_points(start), np.concatenate((wanted, np.repeat(wanted[-1:], tail, axis=0)))
    lowest, highest, slack = _bounds(limits, start.step_s, len(wanted))
    weights, inverse, gather = _system(len(wanted) - tail, tail)
    values, spare = np.empty_like(lowest), np.empty_like(lowest)
    points = np.concatenate((fixed, np.zeros_like(wanted)))
    pulled = inverse @ (weights[:, None] * wanted) - gather @ _differences(points, values)
    points[3:] = wanted
    nearest = np.minimum(np.maximum(_differences(points, values), lowest), highest)
    # The projection and its dual together; at first there is no dual.
    ahead = nearest.copy()
    for done in range(1, rounds + 1):
        np.multiply(nearest, 2.0, out=spare)
        np.subtract(spare, ahead, out=spare)
        np.matmul(gather, spare, out=points[3:])
        points[3:] += pulled
        _differences(points, values)
        if done % _LOOK_EVERY == 0 and (values <= highest + slack).all() and (values >= lowest - slack).all():
            break
        np.subtract(values, nearest, out=spare)
        np.multiply(spare, _OVERSHOOT, out=spare)
        ahead += spare
        np.maximum(ahead, lowest, out=nearest)
        np.minimum(nearest, highest, out=nearest)
    motion = from_control_points(points, start.step_s)
    for part, exact in (
        (motion.positions, start.positions),
        (motion.velocities, start.velocities),
        (motion.accelerations, start.accelerations),
    ):
        part[0] = exact[0]
    return motion


def _bounds(limits: JointLimits, h: float, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what is aimed at, lowest and highest, and how far outside of it the limits still are, (4 * count, J)."""
    margin = _SLACK * (limits.upper - limits.lower)
    most = [limit * h**order for order, limit in enumerate((limits.velocity, limits.acceleration, limits.jerk), 1)]
    highest = [limits.upper - margin, *(_INSIDE * value for value in most)]
    lowest = [limits.lower + margin, *(-value for value in highest[1:])]
    slack = [0.5 * margin, *((1.0 - _INSIDE) * value for value in most)]
    return tuple(np.repeat(np.stack(rows), count, axis=0) for rows in (lowest, highest, slack))


def _fixed_points(start: Motion) -> np.ndarray:
    """(3, J) the control points that a state fixes."""
    h, v, a = start.step_s, start.velocities[0], start.accelerations[0]
    middle = start.positions[0] - a * h * h / 6.0
    return np.stack((middle - v * h + a * h * h / 2.0, middle, middle + v * h + a * h * h / 2.0))


def _differences(points: np.ndarray, into: np.ndarray) -> np.ndarray:
    """Writes the free points and their first three differences below each other, (4 * N, J), given (3 + N, J)."""
    count = len(points) - 3
    into[:count] = points[3:]
    first = points[1:] - points[:-1]
    into[count : 2 * count] = first[2:]
    second = first[1:] - first[:-1]
    into[2 * count : 3 * count] = second[1:]
    np.subtract(second[1:], second[:-1], out=into[3 * count :])
    return into


@lru_cache(maxsize=64)
def _system(count: int, tail: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what the rounds for N = ``count + tail`` points need.

    That is the weights of the points, (N,), the inverse of the system's matrix, (N, N), and this times the transposed
    differences with their penalties, (N, 4 * N).
    """
    total = count + tail
    weights = np.concatenate((np.ones(count), np.full(tail, _TAIL_WEIGHT)))
    step = np.eye(total) - np.eye(total, k=-1)
    orders = [np.eye(total)]
    while len(orders) < len(_PENALTIES):
        orders.append(step @ orders[-1])
    matrix = np.diag(weights)
    for penalty, order in zip(_PENALTIES, orders, strict=True):
        matrix = matrix + penalty * order.T @ order
    inverse = np.linalg.inv(matrix)
    weighted = [penalty * order.T for penalty, order in zip(_PENALTIES, orders, strict=True)]
    return weights, inverse, inverse @ np.concatenate(weighted, axis=1)
