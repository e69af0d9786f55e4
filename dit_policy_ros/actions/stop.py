"""The hold: from any motion to rest, in three pieces of constant jerk per joint."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from dit_policy_ros.actions.limits import JointLimits, exceeds
from dit_policy_ros.actions.motion import Motion, after, fastest, reaches

_VARIANTS = np.array(list(product((0, 1, 2), (-1, 0, 1), (0, 1))), dtype=np.int64)
"""(V, 3) steps added to the lengths of the three pieces after rounding them up to whole steps."""


@dataclass(frozen=True)
class Stops:
    """The shortest ways to rest from some states, (..., J) each."""

    steps: np.ndarray
    """(3, ..., J) int64, length of the pieces: to the braking acceleration, with it, and back to none."""
    jerks: np.ndarray
    """(3, ..., J)."""
    found: np.ndarray
    """(..., J) bool, whether there is one inside the acceleration and jerk limits; else the rest means nothing."""


def stops(limits: JointLimits, position, velocity, acceleration, step_s: float) -> Stops:
    """Finds for every joint and state the hold that goes least far.

    Without whole steps it is the known time-optimal one: a ramp of the acceleration at the jerk limit, a plateau at the
    acceleration limit where the speed needs it, and a ramp back. The pieces are then rounded up to whole steps, for
    which jerks and plateau follow from two linear equations, and the best of a few neighbours is taken.

    Args:
        limits: (J,) each.
        position: (..., J), as velocity and acceleration.
    """
    a, j = limits.acceleration, limits.jerk
    # A state that is outside the limits has no hold inside them.
    hopeless = exceeds(np.abs(velocity), limits.velocity) | exceeds(np.abs(acceleration), a)
    velocity, acceleration = np.where(hopeless, 0.0, velocity), np.where(hopeless, 0.0, acceleration)
    # Velocity once the acceleration is gone; it says which way to brake.
    coasting = velocity + acceleration * np.abs(acceleration) / (2.0 * j)
    sign = np.where(coasting < 0.0, -1.0, 1.0)
    v, a0 = velocity * sign, acceleration * sign
    peak = np.minimum(a, np.sqrt(np.maximum(j * v + a0 * a0 / 2.0, 0.0)))
    plateau_s = np.maximum(0.0, (v + a0 * a0 / (2.0 * j) - peak * peak / j) / a)
    pieces_s = np.stack(((a0 + peak) / j, plateau_s, peak / j))
    least = np.ceil(pieces_s / step_s - 1e-6).astype(np.int64)
    least = np.maximum(least, np.array([1, 0, 1]).reshape((3,) + (1,) * np.ndim(velocity)))
    steps = np.maximum(least[:, None] + _VARIANTS.T.reshape((3, -1) + (1,) * np.ndim(velocity)), 0)
    t1, t2, t3 = durations_s = steps * step_s
    braking = -(velocity + acceleration * t1 / 2.0) / (t1 / 2.0 + t2 + t3 / 2.0)
    jerks = np.stack(((braking - acceleration) / t1, np.zeros_like(braking), -braking / t3))
    possible = ~exceeds(np.abs(braking), a) & ~exceeds(np.abs(jerks), j).any(axis=0)
    state = (position, velocity, acceleration)
    for piece in range(3):
        state = after(durations_s[piece], *state, jerks[piece])
    # From near rest all ways are equally short, but for rounding.
    distance = np.round(np.where(possible, np.abs(state[0] - position), np.inf), 12)
    best = (np.argmin(distance, axis=0), *np.indices(np.shape(velocity), sparse=True))
    piece = (slice(None), *best)
    return Stops(steps[piece], jerks[piece], possible[best] & ~hopeless)


def stop_motion(found: Stops, start: Motion) -> Motion:
    """Returns the knots of holds from one knot, (1, J), until the slowest joint rests; NaN where there is no hold."""
    total = found.steps.sum(axis=0)
    count = int(total.max(initial=0)) + 1
    ends = np.cumsum(found.steps, axis=0)
    durations = found.steps * start.step_s
    states = _states(durations, found.jerks, start.positions[0], start.velocities[0], start.accelerations[0])
    at = np.arange(count)[:, None]
    # Where a piece ends the next one begins, and one of no length is passed over.
    piece = (at >= ends[0]).astype(np.int64) + (at >= ends[1])
    joint = np.arange(len(total))
    begin = (ends - found.steps)[piece, joint]
    values = [np.stack(quantity)[piece, joint] for quantity in zip(*states[:3], strict=True)]
    parts = after((at - begin) * start.step_s, *values, found.jerks[piece, joint])
    rest = at >= total
    np.copyto(parts[0], states[3][0], where=rest)
    for part in parts[1:]:
        np.copyto(part, 0.0, where=rest)
    if not found.found.all():
        for part in parts:
            part[:, ~found.found] = np.nan
    return Motion(start.step_s, *parts)


def _states(durations_s, jerks, position, velocity, acceleration):
    """Returns the states at the beginning of the three pieces and at the end."""
    states = [(position + 0.0 * jerks[0], velocity + 0.0 * jerks[0], acceleration + 0.0 * jerks[0])]
    for duration_s, jerk in zip(durations_s, jerks, strict=True):
        states.append(after(duration_s, *states[-1], jerk))
    return states


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
