"""Joint outputs: trajectories, forward commands, and jogging for MoveIt Servo."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.ros.conversions.stamps import ns_to_time
from dit_policy_ros.ros.conversions.trajectories import trajectory_to_message
from dit_policy_ros.ros.outputs.optional import optional_type
from dit_policy_ros.ros.outputs.output import Moment
from dit_policy_ros.ros.outputs.topic_output import StreamOutput, TrajectoryOutput
from dit_policy_ros.types import NS_PER_S, Trajectory


class JointTrajectoryOutput(TrajectoryOutput):
    """For JointTrajectoryController: accepted from Humble to Lyrical, with and without replacement."""

    message_type = JointTrajectory

    def message(self, trajectory: Trajectory, stamp_ns: int) -> JointTrajectory:
        """See ``TrajectoryOutput``."""
        message = trajectory_to_message(trajectory, stamp_ns)
        if self.controller.accelerations and trajectory.velocities is not None:
            for point, row in zip(message.points, accelerations(trajectory), strict=True):
                point.accelerations = array.array("d", row.tolist())
        return message


class ForwardCommandOutput(StreamOutput):
    """For forward_command_controller: positions in its order of joints, at the control rate, always finite."""

    message_type = Float64MultiArray

    def sample(self, moment: Moment) -> Float64MultiArray:
        """See ``StreamOutput``."""
        return Float64MultiArray(data=array.array("d", moment.reference(moment.now_ns).tolist()))


class JointJogOutput(StreamOutput):
    """For MoveIt Servo, which takes velocities only. It halts by itself when it hears nothing."""

    def __init__(self, *args: Any) -> None:
        self.message_type = optional_type("control_msgs.msg", "JointJog", "joint_jog")
        super().__init__(*args)

    def sample(self, moment: Moment) -> Any:
        """See ``StreamOutput``."""
        message = self.message_type(joint_names=list(self.controller.joints))
        message.header.stamp = ns_to_time(moment.now_ns)
        message.header.frame_id = self.controller.frame_id
        here, there = (moment.reference(moment.now_ns + k * moment.period_ns) for k in (0, 1))
        message.velocities = ((there - here) * (NS_PER_S / moment.period_ns)).tolist()
        message.duration = moment.period_ns / NS_PER_S
        return message


def accelerations(trajectory: Trajectory) -> np.ndarray:
    """Returns accelerations at the waypoints, (K, J), 0 at the last: the mean slope of the velocities around each."""
    times_s = (trajectory.times_ns - trajectory.times_ns[0]) / NS_PER_S
    if len(times_s) < 2:
        return np.zeros_like(trajectory.positions)
    slopes = np.gradient(trajectory.velocities, times_s, axis=0)
    slopes[-1] = 0.0
    return slopes
