"""What each joint may do, and which of it a motion exceeds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dit_policy_ros.actions.motion import Motion, fastest, reaches

TOLERANCE = 1e-7
"""Excess that is rounding, relative to the limit and in its unit."""
KINDS = ("position", "velocity", "acceleration", "jerk")


@dataclass(frozen=True)
class JointLimits:
    """Per-joint limits, (J,) each."""

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    """Unit of the position per second, as those below per second more."""
    acceleration: np.ndarray
    jerk: np.ndarray

    def including(self, lowest: np.ndarray, highest: np.ndarray) -> JointLimits:
        """Returns limits widened so that these positions, (J,) each, lie inside."""
        return replace(self, lower=np.minimum(self.lower, lowest), upper=np.maximum(self.upper, highest))

    def columns(self, which: np.ndarray) -> JointLimits:
        """Returns the limits of some joints."""
        return JointLimits(
            self.lower[which],
            self.upper[which],
            self.velocity[which],
            self.acceleration[which],
            self.jerk[which],
        )


def exceeds(value: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Returns where a value is above its limit; what cannot be compared exceeds."""
    return ~(value <= limit + TOLERANCE * (1.0 + np.abs(limit)))


def excesses(limits: JointLimits, motion: Motion) -> dict[str, np.ndarray]:
    """Returns for each of ``KINDS`` which pieces exceed that limit, (K - 1, J) bool, between knots too."""
    jerks, too_hard = motion.jerks, exceeds(np.abs(motion.accelerations), limits.acceleration)
    return {
        "position": _leaves(limits, motion, jerks),
        "velocity": _speeds(limits, motion, jerks),
        "acceleration": too_hard[:-1] | too_hard[1:],
        "jerk": exceeds(np.abs(jerks), limits.jerk),
    }


def within(limits: JointLimits, motion: Motion) -> np.ndarray:
    """Returns which joints keep all limits all the time, (J,) bool: those of which no piece is in ``excesses``.

    The Bezier points of the pieces settle it for nearly all joints. A single knot must be inside, too.
    """
    positions, velocities, accelerations = motion.positions, motion.velocities, motion.accelerations
    table = np.empty((5, *positions.shape))
    hard, jolts, fast, high, low = table
    np.abs(accelerations, out=hard)
    jolts[0] = 0.0
    np.subtract(accelerations[1:], accelerations[:-1], out=jolts[1:])
    np.multiply(accelerations, 0.5 * motion.step_s, out=fast)
    fast += velocities
    np.abs(table[1:3], out=table[1:3])
    reach = np.abs(velocities)
    np.maximum(fast, reach, out=fast)
    reach *= motion.step_s / 3.0
    np.add(reach, positions, out=high)
    np.subtract(reach, positions, out=low)
    most = table.max(axis=1)
    most[1] /= motion.step_s
    allowed = np.array((limits.acceleration, limits.jerk, limits.velocity, limits.upper, -limits.lower))
    exceeded = exceeds(most, allowed)
    good = ~exceeded.any(axis=0)
    if not good.all():
        doubtful = np.flatnonzero(~good & ~exceeded[:2].any(axis=0))
        if len(doubtful):
            good[doubtful] = _kept_between(limits.columns(doubtful), motion.columns(doubtful))
    return good


def _kept_between(limits: JointLimits, motion: Motion) -> np.ndarray:
    """Returns which joints keep the position and speed limits exactly, (J,) bool."""
    at_knots = exceeds(motion.positions, limits.upper) | exceeds(-motion.positions, -limits.lower)
    jerks = motion.jerks
    pieces = _leaves(limits, motion, jerks) | _speeds(limits, motion, jerks)
    return ~(pieces.any(axis=0) | at_knots.any(axis=0))


def _leaves(limits: JointLimits, motion: Motion, jerks: np.ndarray) -> np.ndarray:
    """Which pieces leave the position limits; exact only for those whose knots and Bezier points do not settle it."""
    third_s = motion.step_s / 3.0
    outside = exceeds(motion.positions, limits.upper) | exceeds(-motion.positions, -limits.lower)
    leaves = outside[:-1] | outside[1:]
    swing = third_s * motion.velocities
    after, before = motion.positions[:-1] + swing[:-1], motion.positions[1:] - swing[1:]
    highest, lowest = np.maximum(after, before), np.minimum(after, before)
    doubtful = np.nonzero((exceeds(highest, limits.upper) | exceeds(-lowest, -limits.lower)) & ~leaves)
    if len(doubtful[0]):
        states = (part[doubtful] for part in (motion.positions, motion.velocities, motion.accelerations))
        lowest, highest = reaches(motion.step_s, *states, jerks[doubtful])
        joint = doubtful[1]
        leaves[doubtful] = exceeds(highest, limits.upper[joint]) | exceeds(-lowest, -limits.lower[joint])
    return leaves


def _speeds(limits: JointLimits, motion: Motion, jerks: np.ndarray) -> np.ndarray:
    """Which pieces exceed the speed limits, found as in ``_leaves``."""
    outside = exceeds(np.abs(motion.velocities), limits.velocity)
    speeds = outside[:-1] | outside[1:]
    middle = motion.velocities[:-1] + (0.5 * motion.step_s) * motion.accelerations[:-1]
    doubtful = np.nonzero(exceeds(np.abs(middle), limits.velocity) & ~speeds)
    if len(doubtful[0]):
        fast = fastest(motion.step_s, motion.velocities[doubtful], motion.accelerations[doubtful], jerks[doubtful])
        speeds[doubtful] = exceeds(fast, limits.velocity[doubtful[1]])
    return speeds
