"""Services, switches and shadow of the executor, on the real node."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from executor_stage import LEFT, RIGHT, Robot
from harness import DOMAIN, HOME, ROBOT, Repeat, Stage, swing, wait_until
from std_msgs.msg import Float64, String
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.actions.limits import KINDS
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.trajectories import message_to_trajectory

pytestmark = pytest.mark.ros


def ends_at_rest(message: JointTrajectory) -> bool:
    return np.abs(message_to_trajectory(message).velocities[-1]).max() == 0.0


def test_without_autostart_nothing_moves_until_start(stage: Stage) -> None:
    robot = Robot(stage, {"autostart": False})
    with Repeat(robot.sense):
        wait_until(lambda: robot.told("inactive: stopped: call start"), "the executor to wait")
        robot.chunks.publish(swing(stage.now_ns()))
        wait_until(lambda: robot.node.problems.present.get("chunk"), "the chunk to be refused")
        assert robot.commands == [[], []]
        assert robot.call("start") == ""
        robot.move()


def test_pause_stop_and_the_e_stop_service(stage: Stage) -> None:
    robot = Robot(stage)
    with Repeat(robot.sense):
        robot.move()
        assert robot.call("pause") == ""
        wait_until(lambda: robot.told("holding: paused"), "the pause")
        assert ends_at_rest(robot.commands[0][-1])
        robot.call("start")
        robot.status.clear()
        robot.move()
        assert robot.call("e_stop") == ""
        wait_until(lambda: robot.told("e-stopped: e-stop: by the service"), "the e-stop")
        assert "e-stop" in robot.call("start")
        assert robot.call("reset") == ""
        wait_until(lambda: robot.told("holding: paused: the e-stop was reset"), "the reset")
        assert robot.call("stop") == ""
        wait_until(lambda: robot.told("inactive: stopped"), "the stop")


def test_home_goes_through_the_controllers(stage: Stage) -> None:
    robot = Robot(stage)
    robot.positions = {name: ROBOT.home[name] + 0.02 for name in ROBOT.names}

    def follow() -> None:
        now_ns, plan = stage.now_ns(), robot.node._executor.reference
        reference = plan(now_ns)
        if reference is not None:
            robot.positions = dict(zip(ROBOT.names, reference.tolist(), strict=True))
        robot.sense()

    with Repeat(follow):
        assert robot.call("home") == ""
        wait_until(lambda: robot.told("holding: paused: at home"), "home")
    for name, position in robot.positions.items():
        assert position == pytest.approx(ROBOT.home[name], abs=1e-3)
    assert all(robot.commands)


def test_one_arm_can_be_left_alone(stage: Stage) -> None:
    robot = Robot(stage)
    switch = stage.client.create_client(SetBool, "/executor_node/switch_left")
    wait_until(switch.service_is_ready, "the switch")
    with Repeat(robot.sense):
        assert switch.call(SetBool.Request(data=False), timeout_sec=10.0).success

        def moving() -> bool:
            robot.chunks.publish(swing(stage.now_ns()))
            return bool(robot.commands[1])

        wait_until(moving, "the right arm to move")
    assert robot.commands[0] == []


def test_speed_reaches_the_motion(stage: Stage) -> None:
    robot = Robot(stage)
    speed = stage.speak(Float64, "/speed")
    speed.publish(Float64(data=0.1))
    wait_until(lambda: robot.node.measure()["speed"] == 0.1, "the speed")
    with Repeat(robot.sense):
        robot.move()
        last = message_to_trajectory(robot.commands[0][-1])
        # The chunk itself asks for 1.9; some of the rest is catching up with it.
        assert np.abs(last.velocities).max() < 0.8
        speed.publish(Float64(data=7.0))
        wait_until(lambda: "must be 0..1" in robot.node.problems.present.get("speed", ""), "the refusal")


def test_options_of_a_file_reach_the_executor(stage: Stage, tmp_path) -> None:
    options = tmp_path / "strict.yaml"
    options.write_text("max_first_jump_s: 0.00001\n")
    robot = Robot(stage, {"executor": str(options)})
    robot.positions = {name: value + 0.05 for name, value in HOME.items()}
    with Repeat(robot.sense):

        def refused() -> bool:
            robot.chunks.publish(swing(stage.now_ns()))
            return "first jump" in robot.node.problems.present.get("chunk", "")

        wait_until(refused, "the stricter rule to refuse")
    assert robot.commands == [[], []]


def test_in_shadow_there_is_no_command_publisher_and_previews_flow(stage: Stage) -> None:
    robot = Robot(stage, {"shadow": True})
    previews = stage.hear(JointTrajectory, "/executor_node/preview")
    interventions = stage.hear(String, "/executor_node/interventions", qos.STATUS)
    assert not stage.publishers_of("executor_node") & {LEFT.topic, RIGHT.topic}
    far = {name: value + 0.9 for name, value in HOME.items()}
    with Repeat(robot.sense):

        def shown() -> bool:
            robot.chunks.publish(swing(stage.now_ns()))
            return bool(previews)

        wait_until(shown, "a preview")
        robot.positions = far

        def intervened() -> bool:
            robot.chunks.publish(swing(stage.now_ns()))
            return any("refused first jump" in json.loads(message.data) for message in interventions)

        wait_until(intervened, "an intervention")
    assert tuple(previews[0].joint_names) == ROBOT.names
    assert robot.commands == [[], []]


def test_another_commander_forbids_the_start_and_stops_a_motion(stage: Stage) -> None:
    teleop = stage.client.create_publisher(JointTrajectory, LEFT.topic, qos.COMMAND)
    robot = Robot(stage)
    with Repeat(robot.sense):
        wait_until(lambda: robot.told("inactive: another commander: /client publishes on"), "the refusal")
        assert "another commander" in robot.call("start")
        stage.client.destroy_publisher(teleop)
        wait_until(lambda: robot.told("holding: activated"), "the other to be gone")
        robot.move()
        stage.client.create_publisher(JointTrajectory, LEFT.topic, qos.COMMAND)
        wait_until(lambda: robot.told("stopping: another commander"), "the arms to stop")
        assert ends_at_rest(robot.commands[0][-1])


def test_limits_and_the_control_loop_are_in_the_diagnostics(stage: Stage) -> None:
    robot = Robot(stage)
    heard = stage.hear(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
    with Repeat(robot.sense):
        robot.move()
        robot.call("pause")
        count = len(heard)
        wait_until(lambda: len(heard) > count + 1, "diagnostics")
    statuses = {s.name: {v.key: v.value for v in s.values} for s in heard[-1].status}
    for kind in KINDS:
        assert float(statuses[f"/executor_node: limit {kind}"]["closest margin"]) < 1.0
        assert statuses[f"/executor_node: limit {kind}"]["of joint"] in ROBOT.names
    assert statuses["/executor_node"]["repeated stops"] == "0"
    assert float(statuses["/executor_node: control loop"]["tick p50_ms"]) > 0.0
    assert int(statuses["/executor_node: input /joint_states"]["publishers"]) == 1
    assert statuses["/executor_node"]["state"] == "holding"


def test_a_lost_parent_ends_in_a_hold_that_is_sent(stage: Stage) -> None:
    child = "[sys.executable, '-m', 'dit_policy_ros.ros.executor_node']"
    code = "import os, subprocess, sys, time; os.environ['DIT_POLICY_ROS_PARENT'] = str(os.getpid()); "
    code += f"print(subprocess.Popen({child}).pid, flush=True); time.sleep(600)"
    environment = {**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    try:
        stage.change("executor_node", "configure", "activate")
        robot = Robot(stage, start_node=False)
        with Repeat(robot.sense):
            robot.move()
            sent = len(robot.commands[0])
            parent.send_signal(signal.SIGKILL)
            wait_until(lambda: stage.client.count_publishers(LEFT.topic) == 0, "the executor to be gone")
        assert len(robot.commands[0]) > sent
        assert all(ends_at_rest(heard[-1]) for heard in robot.commands)
    finally:
        parent.kill()
        parent.wait()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
