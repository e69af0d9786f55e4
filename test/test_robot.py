"""Robot descriptions: the shipped ones load, and every mistake is an error that names it."""

import numpy as np
import pytest
import yaml

from dit_policy_ros.errors import ConfigError, RobotError
from dit_policy_ros.resources import share_directory
from dit_policy_ros.robot import load_robot

SHIPPED = sorted(file.stem for file in (share_directory() / "config" / "robots").glob("*.yaml"))


@pytest.fixture
def description():
    return yaml.safe_load((share_directory() / "config" / "robots" / "aloha.yaml").read_text())


def load(description, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text(description if isinstance(description, str) else yaml.safe_dump(description, sort_keys=False))
    return load_robot(file)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_robots_load(name):
    robot = load_robot(name)
    assert len(robot.names) == len(robot.lower) == len(robot.velocity) == len(robot.acceleration)
    assert (robot.lower < robot.upper).all()
    assert sorted(joint for controller in robot.controllers for joint in controller.joints) == sorted(robot.names)


def test_left_and_right_of_aloha_mirror_each_other():
    robot = load_robot("aloha")
    sides = {side: [joint for joint in robot.joints if joint.arm == side] for side in ("left", "right")}
    for left, right in zip(sides["left"], sides["right"], strict=True):
        assert left.name.replace("left_", "right_") == right.name
        assert left.slot.replace("left_", "right_") == right.slot
        assert (left.lower, left.upper, left.velocity) == (right.lower, right.upper, right.velocity)


def test_grippers_may_have_controllers_of_their_own(description, tmp_path):
    for side in ("left", "right"):
        description["controllers"][f"{side}_arm_controller"]["joints"].remove(f"{side}_gripper")
        description["controllers"][f"{side}_gripper_controller"] = {
            "type": "joint_trajectory",
            "joints": [f"{side}_gripper"],
            "topic": f"/{side}/grip",
        }
    robot = load(description, tmp_path)
    assert [controller.topic for controller in robot.controllers][-1] == "/right/grip"
    np.testing.assert_array_equal(robot.slots.indices, load_robot("aloha").slots.indices)


def test_a_joint_may_state_its_jerk_and_tracking_error(description, tmp_path):
    joint = description["arms"]["left"]["left_elbow"]
    joint |= {"jerk": 500.0, "tracking_error": 0.3}
    robot = load(description, tmp_path)
    elbow = robot.names.index("left_elbow")
    assert (robot.jerk[elbow], robot.joints[elbow].tracking_error) == (500.0, 0.3)
    # Without a jerk limit the largest acceleration may be reached in 10 ms.
    assert robot.jerk[0] == 100.0 * robot.acceleration[0]
    assert robot.joints[0].tracking_error is None
    for name in ("jerk", "tracking_error"):
        joint[name] = -1.0
        with pytest.raises(RobotError, match=name):
            load(description, tmp_path)
        joint[name] = 1.0


def test_what_guards_need_of_a_model(description, tmp_path):
    kinematics = description["kinematics"]
    kinematics |= {"tool_speed": 0.5, "workspace": {"left": {"x": [-1.0, 0.0], "y": [0.0, 1.0], "z": [0.1, 0.8]}}}
    read = load(description, tmp_path).kinematics
    assert (read.tool_speed, read.objects) == (0.5, ("box",))
    np.testing.assert_array_equal(read.workspace["left"], [[-1.0, 0.0, 0.1], [0.0, 1.0, 0.8]])
    assert read.fingers["left_gripper"]["vx300s_left/left_finger"] == (0.021, 0.057)
    for name, wrong in (("tool_speed", 0.0), ("workspace", {"left": {"x": [0, 1]}}), ("fingers", {"left_gripper": 1})):
        broken = {**description, "kinematics": {**kinematics, name: wrong}}
        with pytest.raises(RobotError, match=name):
            load(broken, tmp_path)


def edit(path, value):
    def change(description):
        *parents, last = path
        for key in parents:
            description = description[key]
        description[last] = value

    return change


def drop(*path):
    def change(description):
        *parents, last = path
        for key in parents:
            description = description[key]
        del description[last]

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (edit(("arms", "left", "left_waist", "slot"), "left_leg_joint"), "Slot 'left_leg_joint' does not exist"),
        (edit(("arms", "left", "left_waist", "slot"), "left_arm_joint_1_pos"), "both fill slot 51"),
        (edit(("arms", "left", "left_waist", "position"), [1.0, -1.0]), "joint left_waist: position"),
        (edit(("arms", "left", "left_waist", "position"), 3), "must be .lower, upper."),
        (edit(("arms", "left", "left_waist", "velocity"), 0), "joint left_waist: velocity is 0"),
        (edit(("arms", "left", "left_waist", "velocity"), "fast"), "must be a finite number"),
        (edit(("arms", "left", "left_waist", "colour"), "red"), "unknown colour"),
        (drop("arms", "left", "left_waist", "acceleration"), "lacks acceleration"),
        (edit(("arms", "third"), {}), "unknown third"),
        (edit(("arms",), {}), "describe at least one arm"),
        (edit(("controllers", "left_arm_controller", "joints"), ["left_waist", "nose"]), "joint 'nose' is unknown"),
        (drop("controllers", "left_arm_controller"), "no controller moves left_elbow"),
        (edit(("controllers", "left_arm_controller", "type"), "magic"), "type 'magic' is not one of"),
        (edit(("cameras", "top", "transport"), "pigeon"), "transport 'pigeon' is not one of raw, compressed"),
        (edit(("cameras", "top", "max_age_s"), -1), "must be above zero"),
        (edit(("cameras",), []), "cameras must map"),
        (drop("joint_states"), "lacks joint_states"),
        (edit(("wheels",), 4), "unknown wheels"),
    ],
)
def test_mistakes_are_named(description, tmp_path, change, says):
    change(description)
    with pytest.raises(RobotError, match=says) as caught:
        load(description, tmp_path)
    assert "robot.yaml" in str(caught.value) or "lot" in str(caught.value)


def test_joint_states_episodes_and_depth(description, tmp_path):
    plain = load(description, tmp_path)
    assert plain.states_topics == ("/joint_states",)
    assert (plain.episode_topic, plain.episode_gap_s, plain.cameras["top"].depth_topic) == ("", 0.0, "")
    description["joint_states"]["topic"] = ["/left/joint_states", "/right/joint_states"]
    description["episodes"] = {"topic": "/marker", "gap_s": 2.5}
    description["cameras"]["top"]["depth"] = "/top/depth"
    robot = load(description, tmp_path)
    assert robot.joint_states_topic == "/left/joint_states"
    assert robot.states_topics == ("/left/joint_states", "/right/joint_states")
    assert (robot.episode_topic, robot.episode_gap_s) == ("/marker", 2.5)
    assert robot.cameras["top"].depth_topic == "/top/depth"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (edit(("joint_states", "topic"), ["/a", "/a"]), "a list of different ones"),
        (edit(("joint_states", "topic"), []), "must be a topic"),
        (edit(("episodes",), {"gap_s": 0}), "gap_s is 0; it must be above zero"),
        (edit(("episodes",), {"gap": 3}), "unknown gap"),
        (edit(("poses",), {"left": "/pose"}), "poses.left needs channels of the slots left_eef_pos_x"),
        (edit(("cameras", "top", "calibration"), {"size": [4, 3]}), "calibration lacks focal"),
        (edit(("kinematics", "joints"), {"nose": "n"}), "unknown nose"),
        (edit(("kinematics", "tips"), {"third": "s"}), "unknown third"),
        (drop("kinematics", "model"), "kinematics lacks model"),
    ],
)
def test_mistakes_in_what_recordings_need_are_named(description, tmp_path, change, says):
    change(description)
    with pytest.raises(RobotError, match=says) as caught:
        load(description, tmp_path)
    assert "robot.yaml" in str(caught.value)


def test_a_joint_of_two_controllers_is_refused(description, tmp_path):
    description["controllers"]["right_arm_controller"]["joints"].append("left_waist")
    with pytest.raises(RobotError, match="'left_waist' already belongs to left_arm_controller"):
        load(description, tmp_path)


def test_a_joint_of_both_arms_is_refused(description, tmp_path):
    description["arms"]["right"]["left_waist"] = description["arms"]["right"]["right_waist"]
    with pytest.raises(RobotError, match="left_waist appears twice"):
        load(description, tmp_path)


def test_a_doubled_key_is_refused_though_yaml_allows_it(tmp_path):
    with pytest.raises(RobotError, match="'name' appears twice"):
        load("name: a\nname: b\n", tmp_path)


@pytest.mark.parametrize("text", ["name: [", "- a\n- b\n", "just text", "", "!!python/object:os.system {}\n"])
def test_files_that_are_no_description_are_refused(text, tmp_path):
    with pytest.raises(RobotError, match=r"robot\.yaml"):
        load(text, tmp_path)


def test_a_missing_file_lists_the_shipped_robots(tmp_path):
    with pytest.raises(ConfigError, match="aloha"):
        load_robot("r2d2")
    with pytest.raises(ConfigError, match="Give a path to a YAML file"):
        load_robot(tmp_path / "nowhere.yaml")


def test_binary_junk_is_refused(tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(RobotError, match="Cannot read"):
        load_robot(file)
