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
    h = start.step_s
    fixed = _fixed_points(start)
    wanted = np.concatenate((wanted, np.repeat(wanted[-1:], tail, axis=0)))
    slack = _SLACK * (limits.upper - limits.lower)
    symmetric = ((limits.velocity, 1), (limits.acceleration, 2), (limits.jerk, 3))
    most = [_INSIDE * limit * h**order for limit, order in symmetric]
    bounds = [(limits.lower + slack, limits.upper - slack), *((-limit, limit) for limit in most)]
    weights, inverse = _system(len(wanted) - tail, tail)
    points = np.concatenate((fixed, wanted))
    target = weights[:, None] * wanted
    values = _differences(points)
    nearest = [np.clip(value, *bound) for value, bound in zip(values, bounds, strict=True)]
    duals = [np.zeros_like(value) for value in values]
    offsets = _differences(np.concatenate((fixed, np.zeros_like(wanted))))
    for done in range(1, rounds + 1):
        pulls = [z - u - o for z, u, o in zip(nearest, duals, offsets, strict=True)]
        points[3:] = inverse @ (target + _adjoint(pulls))
        values = _differences(points)
        if done % _LOOK_EVERY == 0 and _are_inside(values, bounds):
            break
        for index, value in enumerate(values):
            ahead = _OVERSHOOT * value + (1.0 - _OVERSHOOT) * nearest[index] + duals[index]
            nearest[index] = np.minimum(np.maximum(ahead, bounds[index][0]), bounds[index][1])
            duals[index] = ahead - nearest[index]
    motion = from_control_points(points, h)
    for part, exact in (
        (motion.positions, start.positions),
        (motion.velocities, start.velocities),
        (motion.accelerations, start.accelerations),
    ):
        part[0] = exact[0]
    return motion


def _are_inside(values: list[np.ndarray], bounds: list[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether all is inside the limits, which are wider than the bounds that are aimed at."""
    (lower, upper), *symmetric = bounds
    slack = 0.5 * _SLACK * (upper - lower)
    if (values[0] < lower - slack).any() or (values[0] > upper + slack).any():
        return False
    return all((np.abs(v) * _INSIDE <= most).all() for v, (_, most) in zip(values[1:], symmetric, strict=True))


def _fixed_points(start: Motion) -> np.ndarray:
    """(3, J) the control points that a state fixes."""
    h, v, a = start.step_s, start.velocities[0], start.accelerations[0]
    middle = start.positions[0] - a * h * h / 6.0
    return np.stack((middle - v * h + a * h * h / 2.0, middle, middle + v * h + a * h * h / 2.0))


def _differences(points: np.ndarray) -> list[np.ndarray]:
    """Returns the free points and their first three differences, (N, J) each, given (3 + N, J)."""
    first = points[1:] - points[:-1]
    second = first[1:] - first[:-1]
    return [points[3:], first[2:], second[1:], second[1:] - second[:-1]]


def _adjoint(values: list[np.ndarray]) -> np.ndarray:
    """Returns the sum of the transposed differences of values, weighted by their penalties, (N, J)."""
    total = _PENALTIES[0] * values[0]
    for order in (1, 2, 3):
        part = _PENALTIES[order] * values[order]
        for _ in range(order):
            part = part.copy()
            part[:-1] -= part[1:]
        total += part
    return total


@lru_cache(maxsize=64)
def _system(count: int, tail: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights of the points, (count + tail,), and the inverse of the system's matrix."""
    weights = np.concatenate((np.ones(count), np.full(tail, _TAIL_WEIGHT)))
    step = np.eye(count + tail) - np.eye(count + tail, k=-1)
    matrix, power = np.diag(weights), np.eye(count + tail)
    for penalty in _PENALTIES:
        matrix = matrix + penalty * power.T @ power
        power = step @ power
    return weights, np.linalg.inv(matrix)
