"""The node that alone moves the robot: chunks in, commands for the controllers out. No torch in its process."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rclpy.clock import Clock, ClockType
from std_msgs.msg import Bool, Float64, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.errors import RobotError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.controller_states import watch_controllers
from dit_policy_ros.ros.conversions.chunks import chunk_to_message, message_to_chunk
from dit_policy_ros.ros.conversions.joints import JointSample
from dit_policy_ros.ros.diagnostics import Status
from dit_policy_ros.ros.executor_report import (
    context_status,
    intervention_counts,
    limit_statuses,
    resident_mb,
    stage_status,
)
from dit_policy_ros.ros.joint_inbox import JointInbox
from dit_policy_ros.ros.last_word import LastWord
from dit_policy_ros.ros.lean import use_little_memory
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.outputs.lines import Lines
from dit_policy_ros.ros.outputs.previews import Previews
from dit_policy_ros.ros.pacer import Pacer
from dit_policy_ros.ros.parameters import parameter
from dit_policy_ros.ros.process import run_node
from dit_policy_ros.ros.realtime import take_priority
from dit_policy_ros.ros.wishes import Wishes
from dit_policy_ros.runtime.context_watch import ContextWatch
from dit_policy_ros.runtime.executor import Executor, ExecutorState
from dit_policy_ros.runtime.executor_config import ExecutorConfig, load_executor_config
from dit_policy_ros.runtime.guard import Guard
from dit_policy_ros.runtime.latency import LatencyWindow
from dit_policy_ros.runtime.mailbox import Mailbox
from dit_policy_ros.runtime.margins import Margins
from dit_policy_ros.runtime.permission import Permission
from dit_policy_ros.runtime.stages import Stages
from dit_policy_ros.runtime.supervisor import State, Supervisor
from dit_policy_ros.types import Trajectory, seconds

COMMANDER_PERIOD_S = 0.5
"""How often other publishers on the controllers' topics are looked for."""
PLAN_PERIOD_S = 0.5
"""How often the plan is said again: one that was lost or spoilt on its way must not be believed for ever."""
JOINTS_KEPT = 64
"""Joint states that wait for a tick, over all topics."""
JUMP_SLACK_S = 0.1
"""Measured joints that move farther than at top speed for this longer than they had time were moved by other means."""


@dataclass(frozen=True)
class ExecutorOptions:
    """Parameters of ``executor_node``."""

    robot: str = parameter("aloha", "Robot description: a name in config/robots, or a path to a YAML file.")
    rate_hz: float = parameter(100.0, "Control rate", "Hz", 1.0, 1000.0)
    max_context_age_s: float = parameter(2.0, "Age of the context at which motion stops", "s", 0.05, 60.0)
    waypoint_s: float = parameter(0.02, "Distance of the waypoints sent to the controllers", "s", 0.002, 0.5)
    executor: str = parameter(
        "", "More options: a name in config/executor, or a path; what is a parameter here does not count there."
    )
    realtime_priority: int = parameter(
        0, "Priority of SCHED_FIFO for this process, so that busy others do not delay it; 0: none", "", 0, 90
    )
    autostart: bool = parameter(True, "Motion is allowed once active; false: only after the service ~/start.")
    enable_timeout_s: float = parameter(
        0.0, "A true on enable counts for this long, as of a dead man's switch; 0: until a false", "s", 0.0, 60.0
    )
    shadow: bool = parameter(False, "Run everything and command nothing; previews and interventions are published.")


class ExecutorNode(ManagedNode):
    """Wires ``runtime.Supervisor`` to topics and services. Callbacks store; one worker ticks at the control rate."""

    OPTIONS = ExecutorOptions

    def __init__(self, name: str = "executor_node", **kwargs) -> None:
        super().__init__(name, **kwargs)
        self._permission: Permission | None = None

    def configure(self) -> None:
        """Loads the robot and opens all lines."""
        options = self.options
        self._robot = load_robot(options.robot)
        config = load_executor_config(options.executor) if options.executor else ExecutorConfig()
        config = replace(config, waypoint_s=options.waypoint_s, max_context_age_s=options.max_context_age_s)
        before, self._permission = self._permission, Permission(options.autostart, options.enable_timeout_s)
        if before is not None:
            self._permission.inherit(before)
        self._executor = Executor(self._robot, config, self._load_guards(config))
        self._supervisor = Supervisor(self._robot, self._executor, self._permission, options.shadow)
        self._chunks: Mailbox[JointTrajectory] = Mailbox()
        self._speeds: Mailbox[Float64] = Mailbox()
        self._wishes = Wishes()
        self._margins = Margins(self._robot)
        self._is_simulated = self.get_parameter("use_sim_time").value
        self._lines = None if options.shadow else Lines(self, self._robot)
        self._previews = Previews(self, self._robot)
        self._plan = self.publish_on(JointTrajectory, "~/plan", qos.COMMAND)
        self._status_line = self.publish_on(String, "~/status", qos.STATUS)
        self._interventions = self.publish_on(String, "~/interventions", qos.STATUS)
        self._listen()
        self._serve()
        self._lookout = self.create_timer(
            COMMANDER_PERIOD_S, self._look_for_commanders, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def _load_guards(self, config: ExecutorConfig) -> tuple[Guard, ...]:
        """Loads the robot's model only where there is one: it needs MuJoCo."""
        if self._robot.kinematics is None or config.collision_mode == "off":
            reason = "collision_mode is off" if self._robot.kinematics else f"{self._robot.name} has no kinematics"
            self.get_logger().warning(f"Collision checking is off: {reason}.")
        if self._robot.kinematics is None:
            return ()
        try:
            from dit_policy_ros.sim.guards import guards_of
        except ModuleNotFoundError as problem:
            raise RobotError(
                f"{self._robot.name} has a model, and checking motions against it needs '{problem.name}'; "
                "pip install 'dit_policy_ros[sim]', or remove kinematics from a copy of the robot YAML."
            ) from problem
        return guards_of(self._robot, config)

    def activate(self) -> None:
        """Starts to hold; moves nothing before the first chunk."""
        self._pacer = Pacer(catch_up_s=2.0 / self.options.rate_hz)
        self._ticks, self._chunk_ages = LatencyWindow(1000), LatencyWindow()
        self._stages = Stages()
        self._contexts = ContextWatch(self.options.max_context_age_s)
        self._chunks.take()
        self._joints.clear()
        self._sample: JointSample | None = None
        self._intervened = intervention_counts(self._executor)
        self._margins.clear()
        self._controllers.restart()
        self._supervisor.activate()
        self._look_for_commanders()
        self._plan_is_out, self._plan_said_s = True, 0.0
        take_priority(self.options.realtime_priority)
        self.start_worker("executor", self._tick)

    def deactivate(self) -> None:
        """Sends the decelerating hold, and waits until the controllers have it and the joints show it."""
        now_ns = self.now_ns()
        sent = self._supervisor.deactivate(now_ns)
        if self._lines is None:
            self._command(sent, now_ns)
        else:
            word = LastWord(self._executor, self._lines, self._command, self._hear_joints, 1.0 / self.options.rate_hz)
            if word.say(sent, now_ns):
                self.get_logger().warning("The last stop was not taken: the arms went on, so it was sent again.")
        self._supervisor.finish(self.now_ns())
        self._tell_changes()

    def cleanup(self) -> None:
        """Closes what is neither publisher, subscription nor service."""
        if getattr(self, "_lookout", None) is not None:
            self.destroy_timer(self._lookout)
            self._lookout = None
        if getattr(self, "_lines", None) is not None:
            self._lines.close()

    def measure(self) -> dict[str, object]:
        """Returns state, refusals and the age of the context."""
        executor, supervisor = self._executor, self._supervisor
        age_ns = executor.context_age_ns(self.now_ns())
        measured: dict[str, object] = {"state": supervisor.state.value, "reason": supervisor.reason}
        measured |= {"arms": ", ".join(sorted(supervisor.arms)), "speed": self._permission.speed}
        measured |= {"shadow": self.options.shadow, "memory_mb": resident_mb(), **self._stages.measure()}
        measured |= {"repeated stops": executor.repeated_stops}
        measured |= {f"refused {kind}": count for kind, count in dict(executor.refusals).items()}
        return measured if age_ns is None else {**measured, "context age_s": seconds(age_ns)}

    def measure_parts(self) -> dict[str, Status]:
        """Returns every limit and the stages of the control loop."""
        stages = stage_status(self._pacer, {"tick": self._ticks, "observation to chunk": self._chunk_ages})
        context = context_status(self._contexts, self.now_ns())
        return {**limit_statuses(self._executor, self._margins), "control loop": stages, "context": context}

    def _listen(self) -> None:
        self.listen_to(JointTrajectory, "chunk", self._chunks.put, qos.COMMAND)
        self._joints = JointInbox(self, self._robot, JOINTS_KEPT)
        self._controllers = watch_controllers(self, self._robot)
        self.listen_to(Bool, "e_stop", self._store_e_stop, qos.LATCHED)
        self.listen_to(Bool, "enable", self._store_enabled, qos.COMMAND)
        self.listen_to(Float64, "speed", self._speeds.put, qos.COMMAND)

    def _serve(self) -> None:
        supervisor, permission = self._supervisor, self._permission
        self.serve(Trigger, "~/start", self._answer(self._start))
        self.serve(Trigger, "~/stop", self._answer(supervisor.stop))
        self.serve(Trigger, "~/pause", self._answer(supervisor.pause))
        self.serve(Trigger, "~/home", self._answer(supervisor.home))
        self.serve(Trigger, "~/e_stop", self._answer(self._press))
        self.serve(Trigger, "~/reset", self._answer(permission.reset))
        for arm in sorted({joint.arm for joint in self._robot.joints}):
            self.serve(SetBool, f"~/switch_{arm}", self._answer_switch(arm))

    def _answer(self, call: Callable[[], str]) -> Callable[[Any, Any], Any]:
        """Returns a service callback: the worker decides, and '' is success. An inactive node decides itself."""

        def answer(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            del request  # Empty.
            reason = self._wishes.ask(call) if self.is_active else call()
            response.success, response.message = not reason, reason or self._supervisor.reason
            return response

        return answer

    def _answer_switch(self, arm: str) -> Callable[[Any, Any], Any]:
        def answer(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
            def call() -> str:
                return self._supervisor.switch_arm(arm, request.data)

            reason = self._wishes.ask(call) if self.is_active else call()
            response.success, response.message = not reason, reason
            return response

        return answer

    def _start(self) -> str:
        self._look_for_commanders()
        return self._supervisor.start()

    def _press(self) -> str:
        self._permission.press("the service")
        self._permission.release("the service")
        return ""

    def _store_e_stop(self, message: Bool) -> None:
        # Not through a mailbox: a false that follows at once must not hide the true.
        if message.data:
            self._permission.press("the topic")
        else:
            self._permission.release("the topic")

    def _store_enabled(self, message: Bool) -> None:
        self._permission.enable(message.data, self._watchdog_ns(self.now_ns()))

    def _look_for_commanders(self) -> None:
        """In shadow others may command."""
        if self._lines is not None:
            self._permission.commander(self._lines.others(), self._supervisor.state is State.MOVING)

    def _tick(self) -> None:
        begin_ns, now_ns = time.monotonic_ns(), self.now_ns()
        self._wishes.grant()
        self._take_speed(now_ns)
        self._take_joints(now_ns)
        took_chunk = self._take_chunk(now_ns)
        watchdog_ns = self._watchdog_ns(now_ns)
        self._permission.controllers(self._controllers.silent(watchdog_ns, self._supervisor.mutes))
        fuse_ns = time.monotonic_ns()
        sent = self._supervisor.tick(now_ns, watchdog_ns)
        if took_chunk:
            self._stages.add("fuse", time.monotonic_ns() - fuse_ns)
        self._command(sent, now_ns)
        self._tell_changes()
        self._tell_interventions(now_ns)
        if time.monotonic() - self._plan_said_s > PLAN_PERIOD_S:
            self._publish_plan()
        self._ticks.add(time.monotonic_ns() - begin_ns)
        self._pacer.wait(1.0 / self.options.rate_hz)

    def _watchdog_ns(self, now_ns: int) -> int:
        """The steady clock; with simulated time that one, since a simulator that stalls does not move the arms."""
        return now_ns if self._is_simulated else time.monotonic_ns()

    def _take_speed(self, now_ns: int) -> None:
        message = self._speeds.take()
        if message is not None:
            self.problems.tell("speed", self._supervisor.set_speed(message.data, now_ns))

    def _take_joints(self, now_ns: int) -> None:
        for heard in self._joints.take():
            reason, sample = heard.problem, heard.sample
            self._executor.heard(heard.topic, heard.stamp_ns)
            if reason:
                self._executor.feedback(0, {})
            elif sample is not None:
                reason = self._supervisor.feedback(sample.stamp_ns, sample.positions)
                if not reason:
                    self._notice_jump(sample, now_ns)
            self.problems.tell(heard.topic, reason)

    def _hear_joints(self) -> int:
        """Takes joint states while the ROS thread is here, where nothing arrives by itself; returns the instant."""
        self._joints.poll()
        now_ns = self.now_ns()
        self._take_joints(now_ns)
        # Nor does /clock.
        return max(now_ns, self._sample.stamp_ns) if self._is_simulated and self._sample is not None else now_ns

    def _notice_jump(self, sample: JointSample, now_ns: int) -> None:
        """Forgets the plan where the arms are suddenly elsewhere, as after a simulator's reset: it leads from there."""
        before, self._sample = self._sample, sample
        if before is None:
            return
        time_s = max(0.0, seconds(sample.stamp_ns - before.stamp_ns)) + JUMP_SLACK_S
        for joint in self._robot.joints:
            distance = abs(sample.positions.get(joint.name, 0.0) - before.positions.get(joint.name, 0.0))
            if distance > joint.velocity * time_s and joint.arm in self._supervisor.arms:
                self.get_logger().error(f"{joint.name} jumped by {distance:.3f}; the plan is forgotten.")
                self._supervisor.restart(now_ns)
                self._publish_plan()
                return

    def _take_chunk(self, now_ns: int) -> bool:
        """Hands a new chunk on; returns whether it was accepted."""
        message = self._chunks.take()
        if message is None:
            return False
        try:
            chunk = message_to_chunk(message)
        except RobotError as problem:
            self.problems.tell("chunk", str(problem))
            return False
        self._chunk_ages.add(max(0, now_ns - chunk.observation_ns))
        self._contexts.offered(chunk, now_ns)
        reason = self._supervisor.accept(chunk, now_ns)
        self.problems.tell("chunk", reason)
        return not reason

    def _command(self, sent: Sequence[Trajectory], now_ns: int) -> None:
        supervisor, begin_ns = self._supervisor, time.monotonic_ns()
        if self._lines is not None:
            moves = supervisor.state in (State.MOVING, State.STOPPING)
            period_ns = round(1e9 / self.options.rate_hz)
            self._lines.command(now_ns, period_ns, sent, self._executor.reference, moves, supervisor.mutes)
        if sent:
            self._margins.note(sent)
            self._previews.publish(sent, now_ns)
            self._publish_plan()
            self._stages.add("publish", time.monotonic_ns() - begin_ns)

    def _publish_plan(self) -> None:
        """A plan without points says that nothing is planned. In shadow nothing is: the arms go their own way."""
        is_on = self._executor.state is not ExecutorState.INACTIVE and not self.options.shadow
        plan = self._executor.plan if is_on else None
        is_out = plan is not None and len(plan.actions) >= 2
        self._plan_said_s = time.monotonic()
        if is_out or self._plan_is_out:
            self._plan.publish(chunk_to_message(plan) if is_out else JointTrajectory())
        self._plan_is_out = is_out

    def _tell_changes(self) -> None:
        self._executor.drain_splices()
        changes = self._supervisor.drain_changes()
        for change in changes:
            self._contexts.changed(change.after.value, change.reason, change.stamp_ns)
            text = f"{change.after.value}: {change.reason}"
            self.get_logger().info(text)
            self._status_line.publish(String(data=text))
        if changes:
            self._publish_plan()

    def _tell_interventions(self, now_ns: int) -> None:
        """Says what was refused or limited in this period, also in shadow, where it would have been."""
        before, self._intervened = self._intervened, intervention_counts(self._executor)
        counts = self._intervened
        new = {kind: count - before.get(kind, 0) for kind, count in counts.items() if count > before.get(kind, 0)}
        if new:
            self._interventions.publish(String(data=json.dumps({"stamp_ns": now_ns, **new})))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the node as a process."""
    use_little_memory()
    return run_node(ExecutorNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
