"""Spline segments between two trajectory points, as ros2_controllers' JointTrajectoryController fits them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class State:
    """Position and, where given, velocity and acceleration of some joints, (N,) each."""

    positions: np.ndarray
    velocities: np.ndarray | None
    accelerations: np.ndarray | None


def interpolate(start_ns: int, start: State, end_ns: int, end: State, now_ns: int) -> State:
    """Returns the state at ``start_ns <= now_ns < end_ns`` of the segment between two points.

    Positions alone give a line, with velocities at both ends a cubic, with accelerations too a quintic
    (joint_trajectory_controller, "Trajectory Representation" in its documentation).
    """
    duration = (end_ns - start_ns) * 1e-9
    t = (now_ns - start_ns) * 1e-9
    p0, p1 = start.positions, end.positions
    if start.velocities is None or end.velocities is None:
        velocities = (p1 - p0) / duration
        return State(p0 + velocities * t, velocities, np.zeros_like(p0))
    v0, v1 = start.velocities, end.velocities
    if start.accelerations is None or end.accelerations is None:
        c2 = (3.0 * (p1 - p0) / duration - 2.0 * v0 - v1) / duration
        c3 = (2.0 * (p0 - p1) / duration + v0 + v1) / duration**2
        c4 = c5 = np.zeros_like(p0)
    else:
        # Residuals of position, velocity and acceleration at the end, after the quadratic fixed by the start.
        a0, a1 = start.accelerations, end.accelerations
        h = (p1 - p0 - v0 * duration - 0.5 * a0 * duration**2) / duration**3
        w = (v1 - v0 - a0 * duration) / duration**2
        u = (a1 - a0) / duration
        c2 = 0.5 * a0
        c3 = 10.0 * h - 4.0 * w + 0.5 * u
        c4 = (-15.0 * h + 7.0 * w - u) / duration
        c5 = (6.0 * h - 3.0 * w + 0.5 * u) / duration**2
    positions = p0 + t * (v0 + t * (c2 + t * (c3 + t * (c4 + t * c5))))
    velocities = v0 + t * (2.0 * c2 + t * (3.0 * c3 + t * (4.0 * c4 + t * 5.0 * c5)))
    accelerations = 2.0 * c2 + t * (6.0 * c3 + t * (12.0 * c4 + t * 20.0 * c5))
    return State(positions, velocities, accelerations)
