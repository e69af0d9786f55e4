"""What needs control_msgs: grippers behind a real action server, and controllers that say that they are there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from executor_stage import LEFT, PATIENT, Robot
from harness import ROBOT, Repeat, Stage, swing, wait_until
from rclpy.action import ActionServer, GoalResponse

from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.stamps import ns_to_time

messages = pytest.importorskip("control_msgs.msg", reason="control_msgs has no wheels")
actions = pytest.importorskip("control_msgs.action")
pytestmark = pytest.mark.ros

LIMIT_S = 0.5


def written(robot: dict, path: Path) -> str:
    path.write_text(yaml.safe_dump(robot, sort_keys=False), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("kind", "action"), [("gripper_command", "GripperCommand"), ("parallel_gripper_command", "ParallelGripperCommand")]
)
def test_a_gripper_controller_gets_goals_from_a_policy(stage: Stage, tmp_path, kind: str, action: str) -> None:
    robot = yaml.safe_load(Path(PATIENT).read_text())
    for arm in ("left", "right"):
        robot["controllers"][f"{arm}_arm_controller"]["joints"].remove(f"{arm}_gripper")
        robot["controllers"][f"{arm}_hand"] = {"type": kind, "joints": [f"{arm}_gripper"], "max_effort": 20.0}
    goals = []
    action_type = getattr(actions, action)

    def accept(goal) -> GoalResponse:
        goals.append(goal.command)
        return GoalResponse.ACCEPT

    def execute(handle):
        handle.succeed()
        return action_type.Result(reached_goal=True)

    server = ActionServer(stage.client, action_type, "/left_hand/gripper_cmd", execute, goal_callback=accept)
    arms = Robot(stage, {"robot": written(robot, tmp_path / "hands.yaml")})
    with Repeat(arms.sense):
        arms.move()
        wait_until(lambda: goals, "a goal at the gripper's controller")
    position = goals[0].position if kind == "gripper_command" else goals[0].position[0]
    assert 0.3 <= position <= 1.0
    assert (goals[0].max_effort if kind == "gripper_command" else goals[0].effort[0]) == 20.0
    server.destroy()


def test_a_controller_that_falls_silent_stops_the_arms(stage: Stage, tmp_path) -> None:
    robot = yaml.safe_load(Path(PATIENT).read_text())
    robot["controllers"][LEFT.name]["max_state_age_s"] = LIMIT_S
    arms = Robot(stage, {"robot": written(robot, tmp_path / "watched.yaml")})
    said = stage.speak(messages.JointTrajectoryControllerState, f"/{LEFT.name}/controller_state")

    def say() -> None:
        message = messages.JointTrajectoryControllerState(joint_names=list(LEFT.joints))
        message.header.stamp = ns_to_time(stage.now_ns())
        said.publish(message)

    with Repeat(arms.sense):
        with Repeat(say):
            arms.move()
            assert f"/{LEFT.name}/controller_state" in {stream.topic for stream in arms.node._streams}
        wait_until(lambda: arms.told(f"controller silent: {LEFT.name} has said nothing for"), "the arms to stop")
        arms.status.clear()
        with Repeat(say):
            arms.move()


def test_a_servo_is_jogged_at_the_speed_of_the_plan(stage: Stage, tmp_path) -> None:
    robot = yaml.safe_load(Path(PATIENT).read_text())
    joints = list(robot["controllers"][LEFT.name]["joints"])
    robot["controllers"][LEFT.name] = {"type": "joint_jog", "joints": joints, "frame_id": "base"}
    topic = f"/{LEFT.name}/delta_joint_cmds"
    jogs = stage.hear(messages.JointJog, topic, qos.COMMANDS_IN)
    arms = Robot(stage, {"robot": written(robot, tmp_path / "servo.yaml"), "rate_hz": 50.0})
    with Repeat(arms.sense):
        wait_until(lambda: arms.chunks.publish(swing(stage.now_ns())) or len(jogs) > 20, "jogging")
    assert jogs[-1].joint_names == joints
    fastest = max(abs(speed) for jog in jogs for speed in jog.velocities)
    assert 0.1 < fastest <= max(ROBOT.velocity)
    assert all(jog.header.frame_id == "base" and len(jog.velocities) == len(joints) for jog in jogs)
