"""What is being commanded, or would be in shadow, for displays: joints of all arms, and poses where channels are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from trajectory_msgs.msg import JointTrajectory, MultiDOFJointTrajectory

from dit_policy_ros.controllers import POSE_CHANNELS
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.trajectories import trajectory_to_message
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.outputs.poses import poses_message
from dit_policy_ros.types import Trajectory


class Previews:
    """Publishes every command once more, off the controllers' topics."""

    def __init__(self, node: ManagedNode, robot: RobotSpec) -> None:
        """Opens ``~/preview``, and ``~/preview_<arm>`` for each arm whose channels are a pose."""
        self._robot = robot
        self._joints = node.publish_on(JointTrajectory, "~/preview", qos.COMMAND)
        slots = {joint.slot: joint.name for joint in robot.joints}
        frames = {joint: c.frame_id for c in robot.controllers for joint in c.joints}
        self._poses = {}
        for arm in sorted({joint.arm for joint in robot.joints}):
            channels = [slots.get(f"{arm}_{channel}") for channel in POSE_CHANNELS]
            if None not in channels:
                publisher = node.publish_on(MultiDOFJointTrajectory, f"~/preview_{arm}", qos.COMMAND)
                self._poses[arm] = (publisher, channels, frames[channels[0]] or f"{arm}_base")

    def publish(self, sent: Sequence[Trajectory], now_ns: int) -> None:
        """Publishes the trajectories of one command as one."""
        names = tuple(name for trajectory in sent for name in trajectory.names)
        positions = np.concatenate([trajectory.positions for trajectory in sent], axis=1)
        whole = Trajectory(names, sent[0].times_ns, positions)
        self._joints.publish(trajectory_to_message(whole, now_ns))
        for arm, (publisher, channels, frame_id) in self._poses.items():
            columns = [names.index(channel) for channel in channels]
            part = Trajectory(tuple(channels), whole.times_ns, positions[:, columns])
            publisher.publish(poses_message(part, now_ns, frame_id, arm))
