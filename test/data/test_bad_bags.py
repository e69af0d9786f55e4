"""Bags that cannot be used as they are: one clear sentence each, and what can be read is read."""

import os
import shutil

import numpy as np
import pytest
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.grid_episode import sample_episode
from dit_policy_ros.data.images import encode_jpeg
from dit_policy_ros.data.inspection import inspect_bag
from dit_policy_ros.errors import BagError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.types import Trajectory

MS = 1_000_000


def refused(match, call):
    with pytest.raises(BagError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_bag_of_another_robot_names_both_sides(recorded):
    franka = load_robot("dual_franka")
    match = r"names left_waist, .* Check the (names|controllers) in the robot YAML"
    refused(match, lambda: open_episode(recorded.path, franka))
    texts = [finding.text for finding in inspect_bag(recorded.path, franka).findings]
    assert any("was recorded with robot 'aloha', not 'dual_franka'" in text for text in texts)


def test_no_messages_at_all(robot, tmp_path):
    with EpisodeWriter(tmp_path / "empty", robot):
        pass
    match = r"has no message on /joint_states \(joint states\)\. Topics present: none"
    refused(match, lambda: open_episode(tmp_path / "empty", robot))


def test_types_that_are_unknown_are_counted_and_disturb_nothing(recorded, robot, tmp_path):
    """A driver's own messages beside the standard ones, as in most labs."""
    path = tmp_path / "foreign"
    own = MessageDefinition(MessageDefinitionFormat.MSG, "uint8[] secret\n")
    with Reader(recorded.path) as reader, Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        odd = writer.add_connection("/odd", "acme_msgs/msg/Secret", msgdef=own.data, rihs01="RIHS01_00")
        known = {}
        for connection, log_ns, cdr in reader.messages():
            if connection.topic not in known:
                known[connection.topic] = writer.add_connection(
                    connection.topic, connection.msgtype, msgdef=connection.msgdef.data, rihs01=connection.digest
                )
            writer.write(known[connection.topic], log_ns, bytes(cdr))
            writer.write(odd, log_ns, b"\x00\x01\x00\x00\x02\x00\x00\x00\x07\x08")
    episode = open_episode(path, robot)
    np.testing.assert_array_equal(episode.joints.positions, recorded.positions)
    inspection = inspect_bag(path, robot)
    assert inspection.streams["/odd"].count == sum(episode.bag.counts.values()) // 2
    (text,) = [finding.text for finding in inspection.findings if finding.subject == "/odd" and "type" in finding.text]
    assert text == "has type acme_msgs/msg/Secret, which is not known here; it is counted only"


def test_images_that_change_their_size_are_told_and_cannot_be_one_video(robot, tmp_path):
    with EpisodeWriter(tmp_path / "bag", robot) as writer:
        writer.instruction(MS, "go")
        for k, ms in enumerate(range(10, 100, 10)):
            writer.joint_state(ms * MS, robot.names, np.zeros(14))
            width = 16 if k < 4 else 24
            writer.compressed_image("top", ms * MS, encode_jpeg(np.zeros((16, width, 3), np.uint8)))
            for controller in robot.controllers:
                message = messages.joint_trajectory(trajectory(controller, ms))
                cdr = bytes(messages.typestore().serialize_cdr(message, messages.JOINT_TRAJECTORY))
                writer.serialized(controller.topic, messages.JOINT_TRAJECTORY, ms * MS, cdr)
    texts = [finding.text for finding in inspect_bag(tmp_path / "bag", robot).findings]
    assert any(text == "the images are not of one kind: 24x16 jpeg (5), 16x16 jpeg (4)" for text in texts)
    grid = sample_episode(open_episode(tmp_path / "bag", robot), 100, ["top"])
    assert {image.shape for _, image in grid.cameras["top"]()} == {(16, 16, 3), (16, 24, 3)}
    export = pytest.importorskip("dit_policy_ros.data.lerobot_export")
    match = "An image is 24x16, but those before were 16x16"
    refused(match, lambda: export.export_episodes(tmp_path / "set", "aloha", 100, [grid]))


def trajectory(controller, ms):
    return Trajectory(controller.joints, np.array([ms * MS]), np.zeros((1, 7)))


@pytest.mark.parametrize("topic", ["/joint_states", "/instruction", "/left_arm_controller/joint_trajectory"])
def test_a_topic_of_the_wrong_type(robot, tmp_path, topic):
    with EpisodeWriter(tmp_path / "bag", robot) as writer:
        for name in {"/joint_states", "/instruction"} - {topic}:
            if name == "/instruction":
                writer.instruction(MS, "go")
            else:
                writer.joint_state(5 * MS, robot.names, np.zeros(14))
        clock = bytes(messages.typestore().serialize_cdr(messages.clock(5), messages.CLOCK))
        writer.serialized(topic, messages.CLOCK, 5 * MS, clock)
    refused(
        rf"topic {topic} carries rosgraph_msgs/msg/Clock; it must be", lambda: open_episode(tmp_path / "bag", robot)
    )
    errors = [finding for finding in inspect_bag(tmp_path / "bag", robot).findings if finding.severity == "error"]
    assert any(finding.subject == topic and "carries rosgraph_msgs/msg/Clock" in finding.text for finding in errors)


def test_nothing_to_sample(robot, recorded):
    episode = open_episode(recorded.path, robot)
    with pytest.raises(BagError, match="Camera 'chest' does not exist"):
        sample_episode(episode, 50, ["chest"])


def test_files_that_are_no_bags_are_told_from_those_that_were_cut(recorded, tmp_path):
    whole = (recorded.path / "episode.mcap").read_bytes()
    contents = {
        "is empty": b"",
        "is no .mcap file": b"a text, and long enough for the beginning and the end of a file\n" * 3,
        "is cut short": whole[:5],
    }
    for text, data in contents.items():
        (tmp_path / "run.mcap").write_bytes(data)
        refused(rf"run.mcap {text} and holds no whole message", lambda: inspect_bag(tmp_path / "run.mcap"))
    (tmp_path / "run.db3").write_bytes(b"no database")
    refused("run.db3 is no .db3 file and holds", lambda: inspect_bag(tmp_path / "run.db3"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [1, 2]",
        "rosbag2_bagfile_information: {relative_file_paths: 5}",
        "rosbag2_bagfile_information: {relative_file_paths: [[1]]}",
        "rosbag2_bagfile_information: {relative_file_paths: [episode.mcap], custom_data: [1]}",
        "rosbag2_bagfile_information: {relative_file_paths: [episode.mcap], message_count: many}",
    ],
)
def test_metadata_that_say_nothing_of_use(recorded, tmp_path, text):
    shutil.copy(recorded.path / "episode.mcap", tmp_path)
    (tmp_path / "metadata.yaml").write_text(text)
    refused("metadata.yaml does not describe a rosbag2; open the .mcap", lambda: inspect_bag(tmp_path))
    assert not inspect_bag(tmp_path / "episode.mcap").bag.lost


def test_a_bag_that_may_not_be_read(recorded, robot, tmp_path):
    path = shutil.copytree(recorded.path, tmp_path / "mine")
    (path / "episode.mcap").chmod(0)
    path.chmod(0o755)
    user = os.geteuid()
    if user == 0:
        # Nothing is forbidden to root.
        os.seteuid(65534)
    try:
        refused("may not be read by this user", lambda: open_episode(path, robot))
        refused("may not be read by this user", lambda: inspect_bag(path / "episode.mcap"))
    finally:
        os.seteuid(user)
