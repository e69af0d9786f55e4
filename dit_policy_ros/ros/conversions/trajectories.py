"""Trajectories: the language of controllers, previews and chunks."""

from __future__ import annotations

import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from dit_policy_ros.errors import RobotError
from dit_policy_ros.ros.conversions.stamps import ns_to_duration, ns_to_time, time_to_ns
from dit_policy_ros.types import Trajectory

MAX_POINTS = 10_000
"""A longer message is refused before it is taken apart."""


@dataclass(frozen=True)
class TrajectoryFields:
    """A trajectory message as a controller judges it: nothing checked yet, rows may be empty."""

    stamp_ns: int
    names: tuple[str, ...]
    offsets_ns: np.ndarray
    """(K,) int64, time from start."""
    positions: Sequence[Sequence[float]]
    velocities: Sequence[Sequence[float]]
    accelerations: Sequence[Sequence[float]]
    efforts: Sequence[Sequence[float]]


def trajectory_fields(message: JointTrajectory) -> TrajectoryFields:
    """Takes a message apart without judging it."""
    points = message.points
    return TrajectoryFields(
        stamp_ns=time_to_ns(message.header.stamp),
        names=tuple(message.joint_names),
        offsets_ns=np.array([time_to_ns(point.time_from_start) for point in points], dtype=np.int64),
        positions=[point.positions for point in points],
        velocities=[point.velocities for point in points],
        accelerations=[point.accelerations for point in points],
        efforts=[point.effort for point in points],
    )


def trajectory_to_message(trajectory: Trajectory, stamp_ns: int | None = None, frame_id: str = "") -> JointTrajectory:
    """Makes a message whose points keep the trajectory's instants.

    Args:
        stamp_ns: header stamp, not after the first waypoint; None takes the instant of the first waypoint.
    """
    stamp_ns = int(trajectory.times_ns[0]) if stamp_ns is None else stamp_ns
    message = JointTrajectory(joint_names=list(trajectory.names))
    message.header.stamp = ns_to_time(stamp_ns)
    message.header.frame_id = frame_id
    for k, offset_ns in enumerate((trajectory.times_ns - stamp_ns).tolist()):
        point = JointTrajectoryPoint(
            positions=_doubles(trajectory.positions[k]),
            time_from_start=ns_to_duration(offset_ns),
        )
        if trajectory.velocities is not None:
            point.velocities = _doubles(trajectory.velocities[k])
        message.points.append(point)
    return message


def message_to_trajectory(message: JointTrajectory) -> Trajectory:
    """Returns a trajectory in absolute times.

    Raises:
        RobotError: no points or too many, rows that do not fit the names, times that do not increase,
            or a value that is not finite.
    """
    count, width = len(message.points), len(message.joint_names)
    if not 0 < count <= MAX_POINTS:
        raise RobotError(f"A trajectory holds {count} points; 1 to {MAX_POINTS} are allowed.")
    if len(set(message.joint_names)) != width:
        raise RobotError(f"A trajectory names a joint twice: {', '.join(message.joint_names)}.")
    fields = trajectory_fields(message)
    positions = _matrix(fields.positions, width, "positions")
    velocities = None
    if any(len(row) for row in fields.velocities):
        velocities = _matrix(fields.velocities, width, "velocities")
    if (np.diff(fields.offsets_ns) <= 0).any():
        raise RobotError("The times of a trajectory do not increase; every point needs a later time than the last.")
    return Trajectory(fields.names, fields.stamp_ns + fields.offsets_ns, positions, velocities)


def _matrix(rows: Sequence[Sequence[float]], width: int, what: str) -> np.ndarray:
    if any(len(row) != width for row in rows):
        raise RobotError(f"A trajectory point has {what} that do not fit its {width} joint names.")
    matrix = np.array(rows, dtype=np.float64).reshape(len(rows), width)
    if not np.isfinite(matrix).all():
        raise RobotError(f"A trajectory holds {what} that are not finite.")
    return matrix


def _doubles(row: np.ndarray) -> array.array:
    return array.array("d", np.ascontiguousarray(row, dtype=np.float64).tobytes())
