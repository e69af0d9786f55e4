from dataclasses import replace

import numpy as np
import pytest
import yaml
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability
from rosbags.typesys import Stores, get_typestore

from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.errors import BagError


def test_opens_with_rosbags_own_reader(recorded):
    with AnyReader([recorded.path]) as reader:
        types = {connection.topic: connection.msgtype for connection in reader.connections}
        latched = [
            connection.topic
            for connection in reader.connections
            if connection.ext.offered_qos_profiles[0].durability == QosDurability.TRANSIENT_LOCAL
        ]
        texts = [
            reader.deserialize(cdr, connection.msgtype).data
            for connection, _, cdr in reader.messages()
            if connection.topic == "/instruction"
        ]
    assert types == {
        "/clock": "rosgraph_msgs/msg/Clock",
        "/instruction": "std_msgs/msg/String",
        "/joint_states": "sensor_msgs/msg/JointState",
        "/left_arm_controller/joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
        "/right_arm_controller/joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
        "/top/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
        "/left_wrist/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
        "/right_wrist/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
    }
    assert latched == ["/instruction"]
    assert texts == ["lift it"]


def test_same_input_gives_the_same_bytes(record, tmp_path):
    first = record("a/episode").path
    second = record("b/episode").path
    for file in ("episode.mcap", "metadata.yaml"):
        assert (first / file).read_bytes() == (second / file).read_bytes()
    other = record("c/episode", seed=8).path
    assert (first / "episode.mcap").read_bytes() != (other / "episode.mcap").read_bytes()


def test_metadata_can_change_until_the_end(robot, tmp_path):
    with EpisodeWriter(tmp_path / "episode", robot) as writer:
        writer.instruction(5, "go")
        writer.joint_state(5, robot.names, np.zeros(14))
        writer.metadata = replace(writer.metadata, outcome="strict", seed=3)
    data = yaml.safe_load((tmp_path / "episode" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert data["custom_data"]["dit_policy_ros.outcome"] == "strict"
    metadata = open_episode(tmp_path / "episode", robot).metadata
    assert (metadata.outcome, metadata.seed, metadata.robot, metadata.world) == ("strict", 3, "aloha", "")


def test_an_exception_leaves_nothing_that_looks_whole(robot, tmp_path):
    path = tmp_path / "episode"

    def break_off() -> None:
        with EpisodeWriter(path, robot) as writer:
            writer.instruction(5, "go")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert not path.exists()
    left = [file.name for file in tmp_path.rglob("*") if file.is_file()]
    assert left == ["episode.mcap"]
    with pytest.raises(BagError, match="cut short"):
        open_episode(tmp_path / "episode.writing", robot)
    with EpisodeWriter(path, robot) as writer:
        writer.instruction(5, "again")
        writer.joint_state(5, robot.names, np.zeros(14))
    assert [entry.name for entry in tmp_path.iterdir()] == ["episode"]
    assert open_episode(path, robot).instruction == "again"


def test_discarded_episode_leaves_nothing(robot, tmp_path):
    with EpisodeWriter(tmp_path / "episode", robot) as writer:
        writer.instruction(5, "go")
        writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_serialized_messages_are_kept_to_the_byte(robot, tmp_path):
    store = get_typestore(Stores.ROS2_HUMBLE)
    text = bytes(store.serialize_cdr(store.types["std_msgs/msg/String"]("raw"), "std_msgs/msg/String"))
    with EpisodeWriter(tmp_path / "episode", robot) as writer:
        writer.serialized("/note", "std_msgs/msg/String", 9, text, latched=True)
        with pytest.raises(BagError, match="no standard ROS 2 type"):
            writer.serialized("/other", "my_msgs/msg/Own", 9, text)
        with pytest.raises(BagError, match="carries std_msgs/msg/String"):
            writer.serialized("/note", "sensor_msgs/msg/JointState", 9, text)
    with AnyReader([tmp_path / "episode"]) as reader:
        assert [(connection.topic, log_ns, bytes(cdr)) for connection, log_ns, cdr in reader.messages()] == [
            ("/note", 9, text)
        ]
        assert reader.connections[0].ext.offered_qos_profiles[0].durability == QosDurability.TRANSIENT_LOCAL


def test_refuses_what_the_robot_lacks_and_what_exists(robot, recorded, tmp_path):
    with pytest.raises(BagError, match="exists already"):
        EpisodeWriter(recorded.path, robot)
    with EpisodeWriter(tmp_path / "episode", robot) as writer:
        with pytest.raises(BagError, match=r"Camera 'side' does not exist. Available: left_wrist, right_wrist, top"):
            writer.raw_image("side", 0, np.zeros((2, 2, 3), np.uint8))
        with pytest.raises(BagError, match="Controller 'third_arm' does not exist"):
            writer.command("third_arm", 0, None)
        writer.discard()
