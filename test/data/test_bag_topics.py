"""Joint states of several topics, poses, depth, other commands, and stamps that are out of order."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml

from dit_policy_ros.actions.rotation import matrix_from_quaternion
from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.inspection import inspect_bag
from dit_policy_ros.data.recorded_body import RecordedBody
from dit_policy_ros.errors import BagError
from dit_policy_ros.resources import find_config
from dit_policy_ros.robot import load_robot

MS = 1_000_000


def put(writer, topic, msgtype, log_ns, message):
    writer.serialized(topic, msgtype, log_ns, bytes(messages.typestore().serialize_cdr(message, msgtype)))


def states(stamp_ns, names, positions):
    return messages.joint_state(stamp_ns, names, np.asarray(positions, float), np.empty(0))


@pytest.fixture
def two_topics(robot):
    return replace(robot, other_states_topics=("/right/joint_states",))


def write_arms(path, robot, right_ms=(0, 7, 17, 27, 37)):
    """The left arm every 10 ms and the right one on its own topic, both on the line position = time."""
    left, right = robot.names[:7], robot.names[7:]
    events = [(10 * k, "/joint_states", left) for k in range(4)]
    events += [(ms, "/right/joint_states", right) for ms in right_ms]
    with EpisodeWriter(path, robot) as writer:
        writer.instruction(100 * MS, "go")
        for ms, topic, names in sorted(events):
            message = states((100 + ms) * MS, names, np.full(7, ms * 1e-3))
            put(writer, topic, messages.JOINT_STATE, (101 + ms) * MS, message)
    return path


def test_joint_states_of_several_topics_are_merged_by_name(robot, two_topics, tmp_path):
    path = write_arms(tmp_path / "arms", robot)
    joints = open_episode(path, two_topics).joints
    assert joints.names == robot.names
    assert (np.diff(joints.times_ns) > 0).all()
    assert joints.times_ns[-1] == 130 * MS
    np.testing.assert_allclose(joints.positions, np.repeat((joints.times_ns[:, None] - 100 * MS) * 1e-9, 14, 1))
    with pytest.raises(BagError, match=r"joint right_waist, .* is missing; the message names left_waist"):
        open_episode(path, robot)
    texts = [finding.text for finding in inspect_bag(path, two_topics).findings if finding.severity == "error"]
    assert not [text for text in texts if "lacks" in text or "joint states" in text]


def test_two_drivers_on_one_topic_are_merged_too(robot, tmp_path):
    arm, grippers = [n for n in robot.names if "gripper" not in n], [n for n in robot.names if "gripper" in n]
    with EpisodeWriter(tmp_path / "bag", robot) as writer:
        writer.instruction(5 * MS, "go")
        for ms in range(10, 60, 10):
            put(writer, "/joint_states", messages.JOINT_STATE, ms * MS, states(ms * MS, arm, np.full(12, ms)))
            late = states((ms + 4) * MS, grippers, np.full(2, ms + 4))
            put(writer, "/joint_states", messages.JOINT_STATE, (ms + 5) * MS, late)
    joints = open_episode(tmp_path / "bag", robot).joints
    np.testing.assert_allclose(joints.positions, np.repeat(joints.times_ns[:, None] / MS, 14, 1))
    assert len(joints.times_ns) >= 8


def test_arms_that_never_overlap_in_time(robot, two_topics, tmp_path):
    path = write_arms(tmp_path / "arms", robot, right_ms=(500, 510))
    with pytest.raises(BagError, match="have no instant in common"):
        open_episode(path, two_topics)


def test_end_effector_poses_are_channels(tmp_path):
    description = yaml.safe_load(find_config("robots", "dual_franka_poses").read_text())
    description["poses"] = {"left": "/left/pose", "right": "/right/pose"}
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    spec = load_robot(tmp_path / "robot.yaml")
    rng = np.random.default_rng(3)
    turns = rng.normal(size=(2, 4))
    with EpisodeWriter(tmp_path / "bag", spec) as writer:
        writer.instruction(MS, "go")
        for ms in (10, 20):
            for arm, x, turn in (("left", 0.3, turns[0]), ("right", 0.5, turns[1])):
                pose = messages.pose(ms * MS, "base", np.array([x, 0.1, ms * 1e-3]), turn)
                put(writer, f"/{arm}/pose", messages.POSE, ms * MS, pose)
            grippers = states(ms * MS, ["right_gripper", "left_gripper"], [0.25, 0.75])
            put(writer, "/joint_states", messages.JOINT_STATE, ms * MS, grippers)
    joints = open_episode(tmp_path / "bag", spec).joints
    assert joints.times_ns.tolist() == [10 * MS, 20 * MS]
    last = dict(zip(spec.names, joints.positions[-1].tolist(), strict=True))
    assert [last[f"left_eef_pos_{axis}"] for axis in "xyz"] == [0.3, 0.1, 0.02]
    assert (last["left_gripper"], last["right_gripper"]) == (0.75, 0.25)
    for arm, turn in zip(("left", "right"), turns, strict=True):
        columns = matrix_from_quaternion(turn)[:, :2].T.reshape(-1)
        np.testing.assert_allclose([last[f"{arm}_eef_angle_{k}"] for k in range(6)], columns)
    with EpisodeWriter(tmp_path / "zero", spec) as writer:
        writer.instruction(MS, "go")
        grippers = states(MS, ["right_gripper", "left_gripper"], [0.25, 0.75])
        put(writer, "/joint_states", messages.JOINT_STATE, MS, grippers)
        put(writer, "/left/pose", messages.POSE, MS, messages.pose(MS, "base", np.zeros(3), np.zeros(4)))
    with pytest.raises(BagError, match="a pose has a quaternion of zeros"):
        open_episode(tmp_path / "zero", spec)


@pytest.mark.parametrize("kind", ["32FC1", "16UC1", "16UC1; compressedDepth png", "32FC1; compressedDepth png"])
def test_depth_images_come_in_metres(robot, tmp_path, kind):
    depth = np.array([[0.5, 1.25, 2.0], [np.nan, 3.0, 0.75]], np.float32)
    camera = replace(robot.cameras["top"], depth_topic="/top/depth")
    spec = replace(robot, cameras={**robot.cameras, "top": camera})
    with EpisodeWriter(tmp_path / "bag", robot) as writer:
        writer.instruction(MS, "go")
        writer.joint_state(5 * MS, robot.names, np.zeros(14))
        writer.joint_state(25 * MS, robot.names, np.zeros(14))
        writer.compressed_image("top", 5 * MS, cv2.imencode(".png", np.zeros((2, 3, 3), np.uint8))[1].tobytes())
        put(writer, *depth_message(kind, 5 * MS, depth))
    episode = open_episode(tmp_path / "bag", spec)
    ((stamp_ns, decode),) = episode.encoded_depths("top")
    assert stamp_ns == 5 * MS
    np.testing.assert_allclose(decode(), depth, atol=5e-3 if kind.startswith("32FC1;") else 1e-6)
    observation = RecordedBody(episode, ("top",)).observe(("top",))
    assert observation.depths["top"].dtype == np.float32
    np.testing.assert_array_equal(np.isnan(observation.depths["top"]), np.isnan(depth))
    assert RecordedBody(open_episode(tmp_path / "bag", robot), ("top",)).observe(("top",)).depths == {}


def depth_message(kind, stamp_ns, depth):
    """Returns (topic, type, log time, message)."""
    if kind == "32FC1":
        return "/top/depth", messages.IMAGE, stamp_ns, messages.depth_image(stamp_ns, "top", depth)
    millimetres = np.nan_to_num(depth * 1000).astype("<u2")
    if kind == "16UC1":
        image = messages.image(stamp_ns, "top", np.zeros((2, 3, 3), np.uint8))
        image.encoding, image.step, image.data = "16UC1", 6, millimetres.view(np.uint8).reshape(-1)
        return "/top/depth", messages.IMAGE, stamp_ns, image
    scale, offset = 2000.0, -100.0
    inverse = np.nan_to_num(scale / depth + offset).astype(np.uint16)
    values = inverse if kind.startswith("32FC1") else millimetres
    png = cv2.imencode(".png", values)[1].tobytes()
    head = bytes(4) + np.array([scale, offset], "<f4").tobytes()
    message = messages.compressed_image(stamp_ns, "top", head + png, kind)
    return "/top/depth/compressedDepth", messages.COMPRESSED_IMAGE, stamp_ns, message


def test_a_depth_topic_that_was_not_recorded(recorded, robot):
    camera = replace(robot.cameras["top"], depth_topic="/top/depth")
    spec = replace(robot, cameras={**robot.cameras, "top": camera})
    episode = open_episode(recorded.path, spec)
    assert not episode.has_depth("top")
    with pytest.raises(BagError, match=r"no message on /top/depth \(depth images of camera top\)"):
        next(episode.encoded_depths("top"))
    with pytest.raises(BagError, match="has no depth topic in the robot YAML"):
        next(open_episode(recorded.path, robot).encoded_depths("top"))
    assert "depth of camera top" in "".join(finding.text for finding in inspect_bag(recorded.path, spec).findings)


def test_stamps_out_of_order_or_twice_are_sorted(robot, tmp_path):
    """Images and joints that arrive late: nothing is lost, the newest wins where two have one stamp."""
    image = np.zeros((4, 4, 3), np.uint8)
    with EpisodeWriter(tmp_path / "bag", robot) as writer:
        writer.instruction(MS, "go")
        for k, ms in enumerate((10, 30, 20, 20, 40, 60)):
            put(
                writer,
                "/joint_states",
                messages.JOINT_STATE,
                (100 + k) * MS,
                states(ms * MS, robot.names, np.full(14, k)),
            )
            jpeg = cv2.imencode(".png", image + k * 10)[1].tobytes()
            message = messages.compressed_image(ms * MS, "top", jpeg, "png")
            put(writer, "/top/image_raw/compressed", messages.COMPRESSED_IMAGE, (100 + k) * MS, message)
    episode = open_episode(tmp_path / "bag", robot)
    assert episode.joints.times_ns.tolist() == [10 * MS, 20 * MS, 30 * MS, 40 * MS, 60 * MS]
    assert episode.joints.positions[:, 0].tolist() == [0, 3, 1, 4, 5]
    body = RecordedBody(episode, ("top",))
    seen = []
    while not body.is_over:
        stamp_ns = body.observe(("top",)).image_stamps_ns["top"]
        assert stamp_ns <= body.now_ns()
        seen.append(stamp_ns // MS)
        body.step()
    assert seen == sorted(seen)
    assert seen[-1] == 40
    texts = "".join(finding.text for finding in inspect_bag(tmp_path / "bag", robot).findings)
    assert "stamped earlier than the one before" in texts
    assert "have the stamp of the one before" in texts
