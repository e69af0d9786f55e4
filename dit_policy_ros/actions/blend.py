"""The part of the way from a motion inside the limits to one that is not, as far as the limits allow."""

from __future__ import annotations

import numpy as np

from dit_policy_ros.actions.limits import JointLimits
from dit_policy_ros.actions.motion import Motion

_SHY = 0.999
"""Of the part that is allowed; the rest is for rounding."""
_TINY = 1e-300
_STATE = ("positions", "velocities", "accelerations")


def blended(limits: JointLimits, inside: Motion, other: Motion, most: float = 1.0) -> Motion:
    """Returns ``inside + weight * (other - inside)`` with about the largest weight per joint that keeps all limits.

    All limits are convex, so what is allowed is one interval from 0 on. Acceleration and jerk are largest at the knots;
    position and velocity lie between the Bezier points of a piece, for which the weight is found. So it may be smaller
    than it could be, and where a Bezier point of ``inside`` lies beyond a limit that its motion keeps, too large: the
    result is to be checked. With weight 0 it is ``inside``. NaN counts as no way at all.

    Args:
        inside: within the limits; it begins as ``other`` does, and both end at rest.
        most: the largest weight to be tried, 0..1.
    """
    count = max(len(inside), len(other))
    inside, other = inside.padded(count), other.padded(count)
    third_s, half_s = inside.step_s / 3.0, inside.step_s / 2.0
    states = tuple((getattr(inside, name), getattr(other, name)) for name in _STATE)
    (p, v, a), (dp, dv, da) = zip(*((here, there - here) for here, there in states), strict=True)
    points = np.concatenate((p, p + third_s * v, p - third_s * v))
    changes = np.concatenate((dp, dp + third_s * dv, dp - third_s * dv))
    speeds, gains = np.concatenate((v, v + half_s * a)), np.concatenate((dv, dv + half_s * da))
    jerk = limits.jerk * inside.step_s
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        weight = np.minimum.reduce(
            (
                _allowed(points, changes, limits.lower, limits.upper),
                _allowed(speeds, gains, -limits.velocity, limits.velocity),
                _allowed(a, da, -limits.acceleration, limits.acceleration),
                _allowed(a[1:] - a[:-1], da[1:] - da[:-1], -jerk, jerk),
            )
        )
        weight = np.minimum(_SHY * weight, most)
        # Zero times NaN is NaN.
        moves = weight > 0.0
        values = [np.where(moves, x + weight * dx, x) for x, dx in ((p, dp), (v, dv), (a, da))]
    return Motion(inside.step_s, *values)


def _allowed(value: np.ndarray, change: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Returns the largest weight for which ``value + weight * change``, (K, J), stays inside, (J,); NaN stays NaN."""
    room = np.where(change > 0.0, highest - value, value - lowest)
    # Where nothing changes nothing is forbidden, at the very limit either.
    return ((room + _TINY) / np.abs(change)).min(axis=0, initial=np.inf)
