"""Lets a policy that speaks poses of the hands drive controllers that take joints: a translator beside the robot."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.errors import RobotError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.chunks import chunk_to_message, message_to_chunk
from dit_policy_ros.ros.conversions.joints import JointSample, sample_to_joint_state
from dit_policy_ros.ros.joint_inbox import JointInbox
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.parameters import parameter
from dit_policy_ros.ros.process import run_node
from dit_policy_ros.runtime.latency import LatencyWindow
from dit_policy_ros.runtime.mailbox import Mailbox

IDLE_S = 0.002
JOINTS_KEPT = 16
NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class KinematicsOptions:
    """Parameters of ``kinematics_node``."""

    robot: str = parameter("aloha", "The robot with joints; its YAML has kinematics.")


class KinematicsNode(ManagedNode):
    """One worker translates the newest of each."""

    OPTIONS = KinematicsOptions

    def __init__(self, name: str = "kinematics_node", **kwargs) -> None:
        super().__init__(name, **kwargs)

    def configure(self) -> None:
        """Loads the robot and its model."""
        # MuJoCo stays out of processes that only import this module.
        from dit_policy_ros.sim.pose_chunks import PoseChunks

        self._robot = load_robot(self.options.robot)
        self._poses = PoseChunks(self._robot)
        self._chunks: Mailbox[JointTrajectory] = Mailbox()
        self._plans: Mailbox[JointTrajectory] = Mailbox()
        self._pose_states = self.publish_on(JointState, "pose_states", qos.COMMAND)
        self._pose_plan = self.publish_on(JointTrajectory, "pose_plan", qos.COMMAND)
        self._joint_chunk = self.publish_on(JointTrajectory, "chunk", qos.COMMAND)
        self._joints = JointInbox(self, self._robot, JOINTS_KEPT)
        self.listen_to(JointTrajectory, "pose_chunk", self._chunks.put, qos.COMMAND)
        self.listen_to(JointTrajectory, "plan", self._plans.put, qos.COMMAND)

    def activate(self) -> None:
        """Starts translating."""
        self._measured: Mapping[str, float] = {}
        self._solving = LatencyWindow()
        self._joints.clear()
        for box in (self._chunks, self._plans):
            box.take()
        self.start_worker("kinematics", self._work)

    def measure(self) -> dict[str, object]:
        """Returns how long a chunk takes."""
        p50, p95 = self._solving.p50_ns, self._solving.p95_ns
        return {} if p50 is None else {"solve p50_ms": p50 / NS_PER_MS, "solve p95_ms": p95 / NS_PER_MS}

    def _work(self) -> None:
        for heard in self._joints.take():
            self.problems.tell(heard.topic, heard.problem or self._translate_joints(heard.sample))
        for box, translate, source in (
            (self._plans, self._translate_plan, "plan"),
            (self._chunks, self._translate_chunk, "pose_chunk"),
        ):
            message = box.take()
            if message is None:
                continue
            try:
                translate(message)
                self.problems.tell(source, "")
            except RobotError as problem:
                self.problems.tell(source, str(problem))
        time.sleep(IDLE_S)

    def _translate_joints(self, sample: JointSample | None) -> str:
        """Publishes where the hands are; returns '' or which joints are missing."""
        if sample is None:
            return ""
        missing = [name for name in self._robot.names if name not in sample.positions]
        if missing:
            return f"The joint states lack {', '.join(missing)}."
        self._measured = sample.positions
        state = JointSample(sample.stamp_ns, self._poses.state(sample.positions))
        self._pose_states.publish(sample_to_joint_state(state))
        return ""

    def _translate_plan(self, message: JointTrajectory) -> None:
        is_empty = not message.points
        plan = message if is_empty else chunk_to_message(self._poses.to_poses(message_to_chunk(message)))
        self._pose_plan.publish(plan)

    def _translate_chunk(self, message: JointTrajectory) -> None:
        if not self._measured:
            raise RobotError("No joint states were received yet; a search needs a start.")
        begin_ns = time.monotonic_ns()
        chunk = self._poses.to_joints(message_to_chunk(message), self._measured)
        self._solving.add(time.monotonic_ns() - begin_ns)
        self._joint_chunk.publish(chunk_to_message(chunk))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the node as a process."""
    return run_node(KinematicsNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
