"""Slowing waypoints down along their own path: the places stay, the times do not."""

from __future__ import annotations

import numpy as np

from dit_policy_ros.actions.limits import JointLimits
from dit_policy_ros.actions.motion import Motion, after, fastest

RAMP_STEPS = 4
"""Steps in which the speed along the path goes from that of the waypoints to the slower one."""
LEAST_SPEED = 0.05


def slower(line: Motion, speed: float) -> np.ndarray:
    """Returns waypoints on a line, one step apart, that pass along it at a share of its speed, (N, J).

    Args:
        line: from the present instant on; its last knot is the last waypoint.
        speed: 0..1, reached in ``RAMP_STEPS`` steps.
    """
    ramp = 1.0 + (speed - 1.0) * np.minimum((np.arange(RAMP_STEPS) + 0.5) / RAMP_STEPS, 1.0)
    end = len(line) - 1.0
    count = RAMP_STEPS + max(0, int(np.ceil((end - ramp.sum()) / speed)))
    phases = np.minimum(np.cumsum(np.concatenate((ramp, np.full(count - RAMP_STEPS, speed)))), end)
    knots = np.minimum(phases.astype(np.int64), len(line) - 2)
    t = ((phases - knots) * line.step_s)[:, None]
    return after(t, line.positions[knots], line.velocities[knots], line.accelerations[knots], line.jerks[knots])[0]


def speed_within(limits: JointLimits, line: Motion) -> float:
    """Returns the share of its speed at which a line would keep the limits on velocity, acceleration and jerk.

    Along a path, velocity goes with the speed, acceleration with its square, jerk with its cube.
    """
    jerks = line.jerks
    speeds = fastest(line.step_s, line.velocities[:-1], line.accelerations[:-1], jerks)
    tiny = 1e-12
    shares = (
        limits.velocity / np.maximum(speeds.max(axis=0), tiny),
        np.sqrt(limits.acceleration / np.maximum(np.abs(line.accelerations).max(axis=0), tiny)),
        np.cbrt(limits.jerk / np.maximum(np.abs(jerks).max(axis=0), tiny)),
    )
    return float(np.clip(np.min(shares), LEAST_SPEED, 1.0))
