"""The hold: from any motion to rest, in three pieces of constant jerk per joint."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from dit_policy_ros.actions.limits import JointLimits, exceeds
from dit_policy_ros.actions.motion import Motion, after, fastest, reaches

_VARIANTS = np.array(list(product((0, 1, 2), (-1, 0, 1), (0, 1))), dtype=np.int64)
"""(V, 3) steps added to the lengths of the three pieces after rounding them up to whole steps."""
_SHORTEST = np.array([[1], [0], [1]])
"""Steps of a piece."""


@dataclass(frozen=True)
class Stops:
    """The shortest ways to rest from some states, (..., J) each."""

    steps: np.ndarray
    """(3, ..., J) int64, length of the pieces: to the braking acceleration, with it, and back to none."""
    jerks: np.ndarray
    """(3, ..., J)."""
    found: np.ndarray
    """(..., J) bool, whether there is one inside the acceleration and jerk limits; else the rest means nothing."""


def stops(limits: JointLimits, velocity, acceleration, step_s: float) -> Stops:
    """Finds for every joint and state the hold that goes least far.

    Without whole steps it is the known time-optimal one: a ramp of the acceleration at the jerk limit, a plateau at the
    acceleration limit where the speed needs it, and a ramp back. The pieces are then rounded up to whole steps, for
    which jerks and plateau follow from two linear equations, and the best of a few neighbours is taken.

    Args:
        limits: (J,) each.
        velocity: (..., J), as acceleration. Where the joint is does not matter.
    """
    a, j = limits.acceleration, limits.jerk
    # A state that is outside the limits has no hold inside them.
    hopeless = exceeds(np.abs(velocity), limits.velocity) | exceeds(np.abs(acceleration), a)
    if hopeless.any():
        velocity, acceleration = np.where(hopeless, 0.0, velocity), np.where(hopeless, 0.0, acceleration)
    # Velocity once the acceleration is gone; it says which way to brake.
    coasting = velocity + acceleration * np.abs(acceleration) / (2.0 * j)
    sign = np.where(coasting < 0.0, -1.0, 1.0)
    v, a0 = velocity * sign, acceleration * sign
    spent = a0 * a0 / 2.0
    peak = np.minimum(a, np.sqrt(np.maximum(j * v + spent, 0.0)))
    plateau_s = (v + (spent - peak * peak) / j) / a
    pieces_s = np.array(((a0 + peak) / j, plateau_s, peak / j))
    least = np.ceil(pieces_s / step_s - 1e-6).astype(np.int64).reshape(3, -1)
    least = np.maximum(least, _SHORTEST)
    steps = np.maximum(least[:, None] + _VARIANTS.T[:, :, None], 0).reshape((3, -1, *velocity.shape))
    t1, t2, t3 = steps * step_s
    braking = -(velocity + acceleration * t1 / 2.0) / (t1 / 2.0 + t2 + t3 / 2.0)
    onset, release = (braking - acceleration) / t1, -braking / t3
    possible = ~(exceeds(np.abs(braking), a) | exceeds(np.maximum(np.abs(onset), np.abs(release)), j))
    distance = t1 * (velocity + t1 * (2.0 * acceleration + braking) / 6.0)
    distance -= braking * (t2 * (t2 + t3) / 2.0 + t3 * t3 / 6.0)
    # From near rest all ways are equally short, but for rounding.
    distance = np.round(np.where(possible, np.abs(distance), np.inf), 12).reshape(len(_VARIANTS), -1)
    count = distance.shape[1]
    best = distance.argmin(axis=0) * count + np.arange(count)
    onset, release, possible = (
        part.reshape(-1).take(best).reshape(velocity.shape) for part in (onset, release, possible)
    )
    steps = steps.reshape(3, -1).take(best, axis=1).reshape(3, *velocity.shape)
    return Stops(steps, np.array((onset, np.zeros_like(onset), release)), possible & ~hopeless)


def stop_motion(found: Stops, start: Motion) -> Motion:
    """Returns the knots of holds from one knot, (1, J), until the slowest joint rests; NaN where there is no hold."""
    ends = found.steps.cumsum(axis=0)
    total, joints = ends[2], ends.shape[1]
    durations_s = found.steps * start.step_s
    *states, last = _states(durations_s, found.jerks, start.positions[0], start.velocities[0], start.accelerations[0])
    at = np.arange(int(total.max(initial=0)) + 1)[:, None]
    # Where a piece ends the next one begins, and one of no length is passed over.
    piece = (at >= ends[0]).astype(np.int64)
    piece += at >= ends[1]
    table = np.array((ends - found.steps, *zip(*states, strict=True), found.jerks))
    begin, *state, jerk = table.reshape(5, -1).take(piece * joints + np.arange(joints), axis=1)
    parts = after((at - begin) * start.step_s, *state, jerk)
    rest = at >= total
    np.copyto(parts[0], last[0], where=rest)
    for part in parts[1:]:
        np.copyto(part, 0.0, where=rest)
    if not found.found.all():
        for part in parts:
            part[:, ~found.found] = np.nan
    return Motion(start.step_s, *parts)


def _states(durations_s, jerks, position, velocity, acceleration):
    """Returns the states at the beginning of the three pieces, the second of which has no jerk, and at the end."""
    t1, t2, t3 = durations_s
    braking = acceleration + t1 * jerks[0]
    first = (
        position + t1 * (velocity + t1 * (2.0 * acceleration + braking) / 6.0),
        velocity + t1 * (acceleration + braking) / 2.0,
        braking,
    )
    second = (first[0] + t2 * (first[1] + t2 * braking / 2.0), first[1] + t2 * braking, braking)
    rest = np.zeros_like(braking)
    return (position, velocity, acceleration), first, second, (second[0] + t3 * t3 * braking / -6.0, rest, rest)


def stays_inside(limits: JointLimits, found: Stops, position, velocity, acceleration, step_s: float) -> np.ndarray:
    """Returns which holds keep the position and speed limits as well, (..., J) bool."""
    inside = found.found.copy()
    durations_s = found.steps * step_s
    states = _states(durations_s, found.jerks, position, velocity, acceleration)
    for duration_s, state, jerk in zip(durations_s, states, found.jerks, strict=False):
        lowest, highest = reaches(duration_s, *state, jerk)
        inside &= ~exceeds(fastest(duration_s, *state[1:], jerk), limits.velocity)
        inside &= ~exceeds(highest, limits.upper) & ~exceeds(-lowest, -limits.lower)
    return inside
