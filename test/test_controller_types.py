"""Controllers in a robot's YAML: each type with what it takes, and every mistake named."""

import pytest
import yaml

from dit_policy_ros.controllers import CONTROLLER_TYPES, POSE_CHANNELS, parse_controllers
from dit_policy_ros.errors import RobotError
from dit_policy_ros.resources import share_directory
from dit_policy_ros.robot import parse_robot

JOINTS = {"a": ("left", "left_arm_joint_0_pos"), "b": ("left", "left_arm_joint_1_pos")}
POSE = {f"left_{channel}": ("left", f"left_{channel}") for channel in POSE_CHANNELS}


def description(kind: str) -> tuple[dict, dict]:
    """An entry that is right for a type, and the joints it is for."""
    if CONTROLLER_TYPES[kind].takes_pose:
        return {"type": kind, "joints": list(POSE), "frame_id": "left_base"}, POSE
    if CONTROLLER_TYPES[kind].takes_one:
        return {"type": kind, "joints": ["a"], "max_effort": 10.0}, {"a": JOINTS["a"]}
    return {"type": kind, "joints": ["b", "a"]}, JOINTS


@pytest.mark.parametrize("kind", CONTROLLER_TYPES)
def test_every_type_has_a_topic_and_keeps_the_order_of_its_joints(kind):
    entry, joints = description(kind)
    (controller,) = parse_controllers({"mine": entry}, joints, "here")
    assert controller.topic == f"/mine/{CONTROLLER_TYPES[kind].topic}"
    assert list(controller.joints) == entry["joints"]


@pytest.mark.parametrize("kind", CONTROLLER_TYPES)
def test_every_type_refuses_an_option_of_others(kind):
    entry, joints = description(kind)
    options = {"accelerations": True, "frame_id": "base", "max_effort": 1.0}
    foreign = next(key for key in options if key not in CONTROLLER_TYPES[kind].options)
    with pytest.raises(RobotError, match=f"unknown {foreign}"):
        parse_controllers({"mine": {**entry, foreign: options[foreign]}}, joints, "here")


@pytest.mark.parametrize(
    ("entry", "joints", "says"),
    [
        ({"type": "pose", "joints": list(POSE)}, POSE, "needs frame_id"),
        ({"type": "pose", "joints": list(POSE)[::-1], "frame_id": "base"}, POSE, "in this order"),
        ({"type": "pose", "joints": ["a", "b"], "frame_id": "base"}, JOINTS, "Give a gripper a controller of its own"),
        ({"type": "gripper_command", "joints": ["a", "b"]}, JOINTS, "has one joint, not 2"),
        ({"type": "gripper_command", "joints": ["a"], "max_effort": -1}, {"a": JOINTS["a"]}, "max_effort is -1"),
        ({"type": "joint_trajectory", "joints": ["a", "b"], "accelerations": "yes"}, JOINTS, "must be true or false"),
        ({"type": "joint_trajectory", "joints": ["a"], "max_state_age_s": 0}, JOINTS, "max_state_age_s is 0"),
        ({"type": "forward_command", "joints": []}, JOINTS, "at least one joint"),
        ({"type": "forward_command", "joints": "a"}, JOINTS, "must be a list"),
        ({"joints": ["a"]}, JOINTS, "lacks type"),
        ("nothing", JOINTS, "must be a mapping"),
    ],
)
def test_mistakes_are_named(entry, joints, says):
    with pytest.raises(RobotError, match=says) as caught:
        parse_controllers({"mine": entry}, joints, "robot.yaml")
    assert "controller mine" in str(caught.value)


def test_two_controllers_on_one_topic_are_refused():
    entries = {name: {"type": "forward_command", "joints": [name], "topic": "/same"} for name in JOINTS}
    with pytest.raises(RobotError, match="two controllers listen to /same"):
        parse_controllers(entries, JOINTS, "robot.yaml")


@pytest.mark.parametrize(
    ("value", "says"), [(9.0, "its limits are"), ("up", "finite number"), (None, "lacks left_waist")]
)
def test_a_home_outside_the_limits_or_incomplete_is_refused(value, says):
    robot = yaml.safe_load((share_directory() / "config" / "robots" / "aloha.yaml").read_text())
    robot["home"] = dict.fromkeys((name for arm in robot["arms"].values() for name in arm), 0.0)
    assert parse_robot(robot, "robot.yaml").home["left_waist"] == 0.0
    robot["home"]["left_waist"] = value
    if value is None:
        del robot["home"]["left_waist"]
    with pytest.raises(RobotError, match=says):
        parse_robot(robot, "robot.yaml")
