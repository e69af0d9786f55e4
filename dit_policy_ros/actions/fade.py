"""Letting the difference between two motions die away."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from dit_policy_ros.actions.motion import Motion, after

PIECES = 3
"""Pieces of constant jerk that take any position, velocity and acceleration to zero."""


def faded(motion: Motion, start: Motion, steps: int) -> Motion:
    """Returns a motion that begins as ``start`` and is ``motion`` from its knot ``PIECES * steps`` on.

    The difference dies away in three pieces of constant jerk.

    Args:
        motion: (K, J) with K > ``PIECES * steps``.
        start: one knot, (1, J).
        steps: knots per piece.
    """
    count = PIECES * steps + 1
    pairs = [(getattr(motion, name), getattr(start, name)[0]) for name in ("positions", "velocities", "accelerations")]
    gap = np.array([begin - values[0] for values, begin in pairs])
    # (3 * knots, 3) with (3, J): what each quantity adds to each.
    added = (_responses(steps, motion.step_s) @ gap).reshape(3, count, -1)
    parts = []
    for change, (values, begin) in zip(added, pairs, strict=True):
        values = values.copy()
        values[:count] += change
        # The start itself is known exactly.
        values[0] = begin
        parts.append(values)
    return Motion(motion.step_s, *parts)


@lru_cache(maxsize=64)
def _responses(steps: int, step_s: float) -> np.ndarray:
    """(3 * (PIECES * steps + 1), 3): position, velocity, acceleration at every knot for a unit of each at the first."""
    piece_s = steps * step_s
    ends = np.empty((3, PIECES))
    for piece in range(PIECES):
        state = after(piece_s, 0.0, 0.0, 0.0, 1.0)
        ends[:, piece] = after((PIECES - 1 - piece) * piece_s, *state, 0.0)
    free = np.stack(after(PIECES * piece_s, *np.eye(3), 0.0))
    jerks = -np.linalg.solve(ends, free)
    knots = [np.eye(3)]
    for piece in range(PIECES):
        first = knots[-1]
        knots += [np.stack(after((k + 1) * step_s, *first, jerks[piece])) for k in range(steps)]
    # What is left after the last piece is rounding.
    knots[-1] = np.zeros((3, 3))
    return np.concatenate(np.stack(knots, axis=1))
