"""The node that alone moves the robot: chunks in, trajectories for the controllers out. No torch in its process."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rclpy.duration import Duration
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.errors import RobotError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.chunks import chunk_to_message, message_to_chunk
from dit_policy_ros.ros.conversions.joints import JointSample, joint_state_to_sample
from dit_policy_ros.ros.conversions.trajectories import trajectory_to_message
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.pacer import Pacer
from dit_policy_ros.ros.parameters import parameter
from dit_policy_ros.ros.process import run_node
from dit_policy_ros.runtime.executor import Executor, ExecutorState
from dit_policy_ros.runtime.executor_config import ExecutorConfig
from dit_policy_ros.runtime.mailbox import Mailbox
from dit_policy_ros.types import Trajectory, seconds

LAST_WORD_TIMEOUT = Duration(seconds=1.0)
JUMP_SLACK_S = 0.1
"""Measured joints that move farther than at top speed for this longer than they had time were moved by other means."""


@dataclass(frozen=True)
class ExecutorOptions:
    """Parameters of ``executor_node``."""

    robot: str = parameter("aloha", "Robot description: a name in config/robots, or a path to a YAML file.")
    rate_hz: float = parameter(100.0, "Control rate", "Hz", 1.0, 1000.0)
    max_context_age_s: float = parameter(2.0, "Age of the context at which motion stops", "s", 0.05, 60.0)
    waypoint_s: float = parameter(0.02, "Distance of the waypoints sent to the controllers", "s", 0.002, 0.5)


class ExecutorNode(ManagedNode):
    """Wires ``runtime.Executor`` to topics. Callbacks store; one worker ticks at the control rate."""

    OPTIONS = ExecutorOptions

    def __init__(self, name: str = "executor_node", **kwargs) -> None:
        super().__init__(name, **kwargs)

    def configure(self) -> None:
        """Loads the robot."""
        options = self.options
        self._robot = load_robot(options.robot)
        config = ExecutorConfig(waypoint_s=options.waypoint_s, max_context_age_s=options.max_context_age_s)
        self._executor = Executor(self._robot, config)
        self._chunks: Mailbox[JointTrajectory] = Mailbox()
        self._joints: Mailbox[JointState] = Mailbox()
        self._is_simulated = self.get_parameter("use_sim_time").value
        self._e_stop = False
        self._enabled = True
        self._commands = [self.publish_on(JointTrajectory, c.topic, qos.COMMAND) for c in self._robot.controllers]
        self._plan = self.publish_on(JointTrajectory, "~/plan", qos.COMMAND)
        self._status = self.publish_on(String, "~/status", qos.LATCHED)
        self.listen_to(JointTrajectory, "chunk", self._chunks.put, qos.COMMAND)
        self.listen_to(JointState, self._robot.joint_states_topic, self._joints.put, qos.NEWEST)
        self.listen_to(Bool, "e_stop", self._store_e_stop, qos.LATCHED)
        self.listen_to(Bool, "enable", self._store_enabled, qos.COMMAND)

    def activate(self) -> None:
        """Starts to hold; moves nothing before the first chunk."""
        self._pacer = Pacer(catch_up_s=2.0 / self.options.rate_hz)
        self._chunks.take()
        self._joints.take()
        self._sample: JointSample | None = None
        self._executor.drain_changes()
        self._restart(self.now_ns())
        self.start_worker("executor", self._tick)

    def deactivate(self) -> None:
        """Sends the decelerating hold, and waits until the controllers have it."""
        now_ns = self.now_ns()
        self._publish(self._executor.deactivate(now_ns), now_ns)
        self._tell_changes()
        for publisher in self._commands:
            publisher.wait_for_all_acked(LAST_WORD_TIMEOUT)

    def measure(self) -> dict[str, object]:
        """Returns state, refusals, limit hits and the age of the context."""
        executor = self._executor
        age_ns = executor.context_age_ns(self.now_ns())
        measured: dict[str, object] = {"state": executor.state.value, "reason": executor.reason}
        measured |= {f"refused {kind}": count for kind, count in executor.refusals.items()}
        measured["position limit hits"] = int(executor.position_hits.sum())
        measured["velocity limit hits"] = int(executor.velocity_hits.sum())
        measured["late periods"] = self._pacer.overruns
        return measured if age_ns is None else {**measured, "context age_s": seconds(age_ns)}

    def _store_e_stop(self, message: Bool) -> None:
        self._e_stop = message.data

    def _store_enabled(self, message: Bool) -> None:
        self._enabled = message.data

    def _tick(self) -> None:
        now_ns = self.now_ns()
        self._obey(now_ns)
        self._take_joints(now_ns)
        self._take_chunk(now_ns)
        self._publish(self._executor.tick(now_ns, self._watchdog_ns(now_ns)), now_ns)
        self._tell_changes()
        self._pacer.wait(1.0 / self.options.rate_hz)

    def _watchdog_ns(self, now_ns: int) -> int:
        """The steady clock; with simulated time that one, since a simulator that stalls does not move the arms."""
        return now_ns if self._is_simulated else time.monotonic_ns()

    def _obey(self, now_ns: int) -> None:
        """Follows the e-stop and enable topics; a fresh start forgets the plan and wants fresh observations."""
        forbidden = "e-stop: publish false on e_stop to release" if self._e_stop else ""
        forbidden = forbidden or ("" if self._enabled else "disabled: publish true on enable")
        is_off = self._executor.state is ExecutorState.INACTIVE
        if forbidden and not is_off:
            self._publish(self._executor.deactivate(now_ns, forbidden), now_ns)
        elif is_off and not forbidden:
            self._restart(now_ns)

    def _restart(self, now_ns: int) -> None:
        """Holds without a plan; chunks must come from observations that are yet to be made."""
        self._allowed_since_ns = now_ns
        self._executor.activate(now_ns)
        self._publish_plan()

    def _take_joints(self, now_ns: int) -> None:
        message = self._joints.take()
        if message is None:
            return
        try:
            sample = joint_state_to_sample(message, self._robot.names)
            reason = self._executor.feedback(sample.stamp_ns, sample.positions)
            self._notice_jump(sample, now_ns)
        except RobotError as problem:
            reason = str(problem)
            self._executor.feedback(0, {})
        self.problems.tell(self._robot.joint_states_topic, reason)

    def _notice_jump(self, sample: JointSample, now_ns: int) -> None:
        """Forgets the plan where the arms are suddenly elsewhere, as after a simulator's reset: it leads from there."""
        before, self._sample = self._sample, sample
        if before is None or self._executor.state is ExecutorState.INACTIVE:
            return
        time_s = max(0.0, seconds(sample.stamp_ns - before.stamp_ns)) + JUMP_SLACK_S
        for joint in self._robot.joints:
            distance = abs(sample.positions.get(joint.name, 0.0) - before.positions.get(joint.name, 0.0))
            if distance > joint.velocity * time_s:
                self.get_logger().error(f"{joint.name} jumped by {distance:.3f}; the plan is forgotten.")
                self._restart(now_ns)
                return

    def _take_chunk(self, now_ns: int) -> None:
        message = self._chunks.take()
        if message is None:
            return
        try:
            chunk = message_to_chunk(message)
        except RobotError as problem:
            self.problems.tell("chunk", str(problem))
            return
        if chunk.observation_ns <= self._allowed_since_ns:
            self.problems.tell("chunk", "made from an observation before the executor was enabled")
            return
        self.problems.tell("chunk", self._executor.accept(chunk, now_ns))

    def _publish(self, trajectories: Sequence[Trajectory], now_ns: int) -> None:
        """Encodes all before any is sent, so that two arms never move on half a command."""
        messages = [trajectory_to_message(trajectory, now_ns) for trajectory in trajectories]
        for publisher, message in zip(self._commands, messages, strict=False):
            publisher.publish(message)
        if messages:
            self._publish_plan()

    def _publish_plan(self) -> None:
        """A plan without points says that nothing is planned."""
        plan = self._executor.plan if self._executor.state is not ExecutorState.INACTIVE else None
        self._plan.publish(JointTrajectory() if plan is None or len(plan.actions) < 2 else chunk_to_message(plan))

    def _tell_changes(self) -> None:
        self._executor.drain_splices()
        changes = self._executor.drain_changes()
        for change in changes:
            text = f"{change.after.value}: {change.reason}"
            self.get_logger().info(text)
            self._status.publish(String(data=text))
        if changes:
            self._publish_plan()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the node as a process."""
    return run_node(ExecutorNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
