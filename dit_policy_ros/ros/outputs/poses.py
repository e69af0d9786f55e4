"""End-effector outputs: poses, twists and whole pose trajectories of one arm, from its nine channels."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Transform, Twist, TwistStamped, Vector3
from trajectory_msgs.msg import MultiDOFJointTrajectory, MultiDOFJointTrajectoryPoint

from dit_policy_ros.actions.rotation import (
    matrix_from_rot6d,
    quaternion_from_matrix,
    rotation_vector_from_matrix,
)
from dit_policy_ros.ros.conversions.stamps import ns_to_duration, ns_to_time
from dit_policy_ros.ros.outputs.output import Moment
from dit_policy_ros.ros.outputs.topic_output import StreamOutput, TrajectoryOutput
from dit_policy_ros.types import NS_PER_S, Trajectory


class PoseOutput(StreamOutput):
    """For Cartesian controllers and MoveIt Servo's pose command."""

    message_type = PoseStamped

    def sample(self, moment: Moment) -> PoseStamped:
        """See ``StreamOutput``."""
        message = PoseStamped(pose=pose_message(moment.reference(moment.now_ns)))
        message.header.stamp = ns_to_time(moment.now_ns)
        message.header.frame_id = self.controller.frame_id
        return message


class TwistOutput(StreamOutput):
    """For MoveIt Servo's twist command: linear and angular velocity in ``frame_id``."""

    message_type = TwistStamped

    def sample(self, moment: Moment) -> TwistStamped:
        """See ``StreamOutput``."""
        here, there = (moment.reference(moment.now_ns + k * moment.period_ns) for k in (0, 1))
        linear, angular = twist_between(here, there, moment.period_ns / NS_PER_S)
        message = TwistStamped(twist=Twist(linear=_vector(linear), angular=_vector(angular)))
        message.header.stamp = ns_to_time(moment.now_ns)
        message.header.frame_id = self.controller.frame_id
        return message


class PoseTrajectoryOutput(TrajectoryOutput):
    """For planners and displays: stamped poses to come."""

    message_type = MultiDOFJointTrajectory

    def message(self, trajectory: Trajectory, stamp_ns: int) -> MultiDOFJointTrajectory:
        """See ``TrajectoryOutput``."""
        return poses_message(trajectory, stamp_ns, self.controller.frame_id, self.controller.name)


def pose_message(channels: np.ndarray) -> Pose:
    """Makes a pose of (9,) channels: position [m], first two columns of the rotation."""
    quaternion = quaternion_from_matrix(matrix_from_rot6d(channels[3:9]))
    x, y, z, w = quaternion.tolist()
    return Pose(position=Point(**_xyz(channels)), orientation=Quaternion(x=x, y=y, z=z, w=w))


def poses_message(trajectory: Trajectory, stamp_ns: int, frame_id: str, name: str) -> MultiDOFJointTrajectory:
    """Makes a message of poses that keep the trajectory's instants.

    Args:
        trajectory: of nine channels.
        name: of the one "joint", the end effector.
    """
    message = MultiDOFJointTrajectory(joint_names=[name])
    message.header.stamp = ns_to_time(stamp_ns)
    message.header.frame_id = frame_id
    for time_ns, row in zip(trajectory.times_ns.tolist(), trajectory.positions, strict=True):
        pose = pose_message(row)
        transform = Transform(translation=Vector3(**_xyz(row)), rotation=pose.orientation)
        point = MultiDOFJointTrajectoryPoint(transforms=[transform], time_from_start=ns_to_duration(time_ns - stamp_ns))
        message.points.append(point)
    return message


def twist_between(here: np.ndarray, there: np.ndarray, time_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns linear [m/s] and angular [rad/s] velocity that leads from one pose to another, (3,) each.

    Args:
        here: (9,) channels.
        there: (9,) channels, ``time_s`` later.
    """
    turn = matrix_from_rot6d(there[3:9]) @ matrix_from_rot6d(here[3:9]).T
    return (there[:3] - here[:3]) / time_s, rotation_vector_from_matrix(turn) / time_s


def _xyz(values: np.ndarray) -> dict[str, float]:
    return dict(zip("xyz", values[:3].tolist(), strict=True))


def _vector(values: np.ndarray) -> Vector3:
    return Vector3(**_xyz(values))
