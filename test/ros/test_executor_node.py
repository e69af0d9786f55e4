from __future__ import annotations

import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from executor_stage import LEFT, RIGHT, Robot
from harness import DOMAIN, HOME, Repeat, Stage, joint_state, swing, wait_until
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.stamps import ns_to_time
from dit_policy_ros.ros.conversions.trajectories import message_to_trajectory, trajectory_fields
from dit_policy_ros.sim.controllers import TrajectoryController, TrajectoryControllerConfig

pytestmark = pytest.mark.ros
FORBIDDEN = ("torch", "cv2", "mujoco", "safetensors")


def test_a_chunk_becomes_one_trajectory_per_arm_that_real_controllers_accept(stage: Stage) -> None:
    robot = Robot(stage)
    with Repeat(robot.sense):
        wait_until(lambda: robot.told("holding"), "the executor to hold")
        assert robot.commands == [[], []]
        robot.move()
    for controller, heard in zip((LEFT, RIGHT), robot.commands, strict=True):
        fields = trajectory_fields(heard[0])
        start = np.array([HOME[joint] for joint in controller.joints])
        real = TrajectoryController(controller.joints, TrajectoryControllerConfig(), start)
        reason = real.accept(
            fields.stamp_ns,
            fields.names,
            fields.offsets_ns,
            fields.positions,
            fields.velocities,
            fields.accelerations,
            fields.stamp_ns,
        )
        assert reason == ""
    left, right = (heard[0] for heard in robot.commands)
    assert left.header.stamp == right.header.stamp
    assert [p.time_from_start for p in left.points] == [p.time_from_start for p in right.points]


def test_how_long_chunks_take_to_be_fused_and_commands_to_be_published_is_measured(stage: Stage) -> None:
    robot = Robot(stage)
    with Repeat(robot.sense):
        robot.move()

        def told() -> dict:
            robot.chunks.publish(swing(stage.now_ns()))
            measured = robot.node.measure()
            return measured if {"fuse p99_ms", "publish p99_ms"} <= set(measured) else {}

        measured = wait_until(told, "a second chunk to be fused and a second command to be published")
    for name in ("fuse", "publish"):
        assert 0.0 < measured[f"{name} p50_ms"] <= measured[f"{name} p95_ms"] <= measured[f"{name} p99_ms"]
    assert "context" in robot.node.measure_parts()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda positions: {**positions, "left_elbow": math.nan}, "left_elbow is not finite"),
        (lambda positions: {name: v for name, v in positions.items() if name != "right_waist"}, "right_waist"),
    ],
)
def test_bad_joint_states_stop_the_arms_with_a_reason(stage: Stage, spoil, reason: str) -> None:
    robot = Robot(stage)
    with Repeat(robot.sense):
        robot.move()
        robot.positions = spoil(HOME)
        wait_until(lambda: robot.told("stopping: joint states invalid"), "the executor to stop")
        assert any(reason in message.data for message in robot.status)
        refused = len(robot.commands[0])
        robot.chunks.publish(swing(stage.now_ns()))
        wait_until(lambda: robot.node.problems.present.get("chunk"), "the chunk to be refused")
        assert len(robot.commands[0]) == refused
        robot.positions = dict(HOME)
        wait_until(lambda: robot.told("holding"), "the arms to rest")
        robot.move()
    assert all(np.isfinite(message_to_trajectory(message).positions).all() for message in robot.commands[0])


def test_silent_joint_states_stop_the_arms(stage: Stage) -> None:
    robot = Robot(stage, {"robot": "aloha"})
    with Repeat(robot.sense):
        robot.move()
    wait_until(lambda: robot.told("stopping: joint states stale"), "the executor to stop")


def test_a_simulator_that_stalls_is_no_fault_and_one_that_goes_on_without_joints_is(stage: Stage) -> None:
    robot = Robot(stage, {"robot": "aloha", "use_sim_time": True})
    clock = stage.speak(Clock, "/clock", qos.NEWEST)
    sim_ns = 10**9

    def advance() -> None:
        nonlocal sim_ns
        sim_ns += 20_000_000
        clock.publish(Clock(clock=ns_to_time(sim_ns)))

    def moving() -> bool:
        advance()
        robot.joints.publish(joint_state(sim_ns, HOME))
        robot.chunks.publish(swing(sim_ns))
        return robot.told("moving")

    wait_until(moving, "the arms to move")
    stalled_ns = stage.now_ns()
    wait_until(lambda: stage.now_ns() - stalled_ns > 5e8, "more than the age limit of joint states")
    assert not robot.told("stopping")

    def stopped() -> bool:
        advance()
        robot.chunks.publish(swing(sim_ns))
        return robot.told("stopping: joint states stale")

    wait_until(stopped, "the executor to miss joint states")


def test_a_context_that_grows_old_stops_the_arms(stage: Stage) -> None:
    robot = Robot(stage)
    born_ns = stage.now_ns()

    def think() -> None:
        robot.sense()
        robot.chunks.publish(swing(stage.now_ns(), context_ns=born_ns))

    with Repeat(think):
        wait_until(lambda: robot.told("moving"), "the arms to move")
        wait_until(lambda: robot.told("stopping: stale context"), "the executor to stop")


@pytest.mark.parametrize(
    ("topic", "go", "stop", "state"),
    [("/e_stop", False, True, "e-stopped: e-stop"), ("/enable", True, False, "holding: disabled")],
)
def test_stop_topics_end_in_a_hold_and_refuse_chunks_until_released(
    stage: Stage, topic: str, go: bool, stop: bool, state: str
) -> None:
    robot = Robot(stage)
    switch = stage.speak(Bool, topic, qos.LATCHED)
    with Repeat(robot.sense):
        robot.move()
        switch.publish(Bool(data=stop))
        wait_until(lambda: robot.told(state), "the executor to stop")
        last = message_to_trajectory(robot.commands[0][-1])
        assert np.abs(last.velocities[-1]).max() == 0.0
        before_ns = stage.now_ns()
        robot.chunks.publish(swing(stage.now_ns()))
        wait_until(lambda: "inactive" in robot.node.problems.present.get("chunk", ""), "the chunk to be refused")
        robot.status.clear()
        switch.publish(Bool(data=go))
        if topic == "/e_stop":
            robot.call("reset", succeeds_within=True)
            assert robot.call("start") == ""
        wait_until(lambda: robot.told("holding: activated"), "the executor to be released")
        robot.chunks.publish(swing(stage.now_ns(), observation_ns=before_ns))
        wait_until(
            lambda: "before start" in robot.node.problems.present.get("chunk", ""),
            "the chunk made before the release to be refused",
        )
        robot.move()


def test_joints_that_are_suddenly_elsewhere_make_the_plan_void(stage: Stage) -> None:
    robot = Robot(stage)
    with Repeat(robot.sense):
        robot.move()
        sent = len(robot.commands[0])
        robot.status.clear()
        robot.positions = {name: position - 0.9 for name, position in HOME.items() if "gripper" not in name}
        robot.positions |= {name: 0.0 for name in HOME if "gripper" in name}
        wait_until(lambda: robot.told("holding: activated"), "the executor to start anew")
        # One command may have been on its way.
        assert len(robot.commands[0]) <= sent + 1

        def refused() -> bool:
            robot.chunks.publish(swing(stage.now_ns()))
            return "first jump" in robot.node.problems.present.get("chunk", "")

        wait_until(refused, "the far chunk to be refused")
        assert len(robot.commands[0]) <= sent + 1


def test_deactivation_sends_a_decelerating_hold(stage: Stage) -> None:
    robot = Robot(stage)
    with Repeat(robot.sense):
        robot.move()
        sent = len(robot.commands[0])
        stage.change("executor_node", "deactivate")
    wait_until(lambda: len(robot.commands[0]) > sent and len(robot.commands[1]) > sent, "the last hold")
    last = message_to_trajectory(robot.commands[0][-1])
    assert np.abs(last.velocities[-1]).max() == 0.0
    speeds = np.abs(last.velocities).max(axis=1)
    assert speeds[0] > 0.0
    # The acceleration that it had fades within a step or two; from then on it only brakes.
    peak = int(np.argmax(speeds))
    assert peak <= 2
    assert (np.diff(speeds[peak:]) <= 1e-9).all()


class DeafArms(Robot):
    """Joints that follow controllers which do not take the message after ``taken``."""

    def follow(self) -> None:
        """From now on; all commands up to here were taken."""
        self.taken = [len(heard) for heard in self.commands]
        self.late = list(self.taken)
        start = np.array(list(HOME.values()))
        self.controllers = []
        for arm, heard in zip((LEFT, RIGHT), self.commands, strict=True):
            columns = [list(HOME).index(joint) for joint in arm.joints]
            self.controllers.append(TrajectoryController(arm.joints, TrajectoryControllerConfig(), start[columns]))
            self.controllers[-1].follow(message_to_trajectory(heard[-1]), self.stage.now_ns())

    def step(self) -> None:
        """Measures, and hears every command but the first one."""
        now_ns = self.stage.now_ns()
        for index, (controller, heard) in enumerate(zip(self.controllers, self.commands, strict=True)):
            for message in heard[max(self.late[index], self.taken[index] + 1) :]:
                controller.follow(message_to_trajectory(message), now_ns)
            self.late[index] = len(heard)
            self.positions |= dict(zip(controller.joints, controller.sample(now_ns)[0].tolist(), strict=True))
        self.sense()


def test_a_deactivation_sends_the_stop_again_that_controllers_did_not_take(stage: Stage) -> None:
    arms = DeafArms(stage)
    with Repeat(arms.sense):
        arms.move()
    arms.follow()
    with Repeat(arms.step):
        stage.change("executor_node", "deactivate")
        wait_until(
            lambda: all(len(heard) >= sent + 2 for heard, sent in zip(arms.commands, arms.taken, strict=True)), "it"
        )
        last = [message_to_trajectory(heard[-1]) for heard in arms.commands]
        ended_ns = max(int(trajectory.times_ns[-1]) for trajectory in last)
        wait_until(lambda: stage.now_ns() > ended_ns, "the end of the stop")
    arms.step()
    for trajectory in last:
        assert np.abs(trajectory.velocities[-1]).max() == 0.0
        rest = [arms.positions[name] for name in trajectory.names]
        np.testing.assert_allclose(rest, trajectory.positions[-1], atol=1e-6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_a_hold_and_a_clean_exit(stage: Stage, number: signal.Signals) -> None:
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)}
    process = subprocess.Popen([sys.executable, "-m", "dit_policy_ros.ros.executor_node"], env=environment)
    try:
        stage.change("executor_node", "configure", "activate")
        robot = Robot(stage, start_node=False)
        with Repeat(robot.sense):
            robot.move()
            sent = len(robot.commands[1])
            process.send_signal(number)
            assert process.wait(30) == 0
            wait_until(lambda: len(robot.commands[1]) > sent, "the last hold")
        assert np.abs(message_to_trajectory(robot.commands[1][-1]).velocities[-1]).max() == 0.0
        wait_until(lambda: stage.client.count_publishers(LEFT.topic) == 0, "the command publishers to be gone")
    finally:
        process.kill()
        process.wait()


def test_a_node_shuts_down_when_its_launcher_is_gone(stage: Stage) -> None:
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "DIT_POLICY_ROS_PARENT": "1"}
    process = subprocess.Popen([sys.executable, "-m", "dit_policy_ros.ros.executor_node"], env=environment)
    try:
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_the_executor_process_loads_neither_torch_nor_images_nor_a_simulator() -> None:
    code = f"import sys, dit_policy_ros.ros.executor_node; print([m for m in {FORBIDDEN} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_plan_is_said_again_and_again_for_those_who_lost_it(stage: Stage) -> None:
    robot = Robot(stage)
    with Repeat(robot.sense):
        robot.move()
        wait_until(lambda: robot.told("holding: out of plan"), "the arms to rest")
        late = stage.hear(JointTrajectory, "/executor_node/plan", qos.COMMAND)
        wait_until(lambda: len(late) > 1, "the plan, twice, without any new command")
    assert list(late[-1].joint_names) == list(LEFT.joints + RIGHT.joints)
