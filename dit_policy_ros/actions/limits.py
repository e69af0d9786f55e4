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
    """Returns for each of ``KINDS`` which pieces exceed that limit, (..., K - 1, J) bool, between knots too."""
    step_s, jerks = motion.step_s, motion.jerks
    speeds, hard = motion.velocities[..., :-1, :], np.abs(motion.accelerations)
    return {
        "position": _leaves(limits, motion, jerks),
        "velocity": exceeds(fastest(step_s, speeds, motion.accelerations[..., :-1, :], jerks), limits.velocity),
        "acceleration": exceeds(np.maximum(hard[..., :-1, :], hard[..., 1:, :]), limits.acceleration),
        "jerk": exceeds(np.abs(jerks), limits.jerk),
    }


def within(limits: JointLimits, motion: Motion) -> np.ndarray:
    """Returns which joints keep all limits all the time, (..., J) bool."""
    found = excesses(limits, motion)
    exceeded = found["position"] | found["velocity"] | found["acceleration"] | found["jerk"]
    return ~exceeded.any(axis=-2)


def _leaves(limits: JointLimits, motion: Motion, jerks: np.ndarray) -> np.ndarray:
    """Which pieces leave the position limits; exact only for those whose Bezier points do not settle it."""
    third_s = motion.step_s / 3.0
    begins, ends = motion.positions[..., :-1, :], motion.positions[..., 1:, :]
    first, last = motion.velocities[..., :-1, :], motion.velocities[..., 1:, :]
    inner, outer = begins + third_s * first, ends - third_s * last
    highest = np.maximum(np.maximum(begins, ends), np.maximum(inner, outer))
    lowest = np.minimum(np.minimum(begins, ends), np.minimum(inner, outer))
    leaves = exceeds(highest, limits.upper) | exceeds(-lowest, -limits.lower)
    if leaves.any():
        doubtful = np.nonzero(leaves)
        pieces = (begins[doubtful], first[doubtful], motion.accelerations[..., :-1, :][doubtful], jerks[doubtful])
        lowest, highest = reaches(motion.step_s, *pieces)
        joint = doubtful[-1]
        leaves[doubtful] = exceeds(highest, limits.upper[joint]) | exceeds(-lowest, -limits.lower[joint])
    return leaves
