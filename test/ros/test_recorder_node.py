from __future__ import annotations

import dataclasses

import pytest
import yaml
from harness import HOME, ROBOT, Repeat, Stage, joint_state, picture, swing, wait_until
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, Empty, Float64, String
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.data.episode_spans import episode_spans
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.resources import find_config
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.episode_state import EpisodeState
from dit_policy_ros.ros.recorder_node import RecorderNode

pytestmark = pytest.mark.ros


class Graph:
    """A recorder, and publishers of what it hears."""

    def __init__(self, stage: Stage, directory, **parameters) -> None:
        self.stage = stage
        self.node = stage.activate(RecorderNode, "recorder_node", {"directory": str(directory), **parameters})
        self.joints = stage.speak(JointState, "/joint_states")
        self.camera = stage.speak(CompressedImage, "/top/image_raw/compressed")
        self.command = stage.speak(JointTrajectory, ROBOT.controllers[0].topic)
        self.instruction = stage.speak(String, "/instruction", qos.LATCHED)
        self.episode = stage.speak(String, "/episode", qos.LATCHED)

    def act(self) -> None:
        now_ns = self.stage.now_ns()
        self.joints.publish(joint_state(now_ns, HOME))
        self.camera.publish(picture(now_ns, "top"))
        self.command.publish(swing(now_ns))

    def record(self, messages: int = 20) -> None:
        enough = self.node.measure()["messages"] + messages
        with Repeat(self.act):
            wait_until(lambda: self.node.measure()["messages"] > enough, "messages to be written")


def test_a_run_becomes_one_bag_with_the_instruction(stage: Stage, tmp_path) -> None:
    graph = Graph(stage, tmp_path)
    graph.instruction.publish(String(data="hand over the red cube"))
    graph.record()
    stage.change("recorder_node", "deactivate")
    (path,) = tmp_path.iterdir()
    bag = BagFile(path)
    assert bag.topics["/joint_states"] == "sensor_msgs/msg/JointState"
    assert bag.topics["/left_arm_controller/joint_trajectory"] == "trajectory_msgs/msg/JointTrajectory"
    assert bag.counts["/top/image_raw/compressed"] > 0
    metadata = EpisodeMetadata.from_custom_data(bag.custom_data)
    assert (metadata.robot, metadata.instruction) == ("aloha", "hand over the red cube")
    logged = [log_ns for _, log_ns, _ in bag.messages(["/joint_states"])]
    assert logged == sorted(logged)


def test_every_episode_becomes_a_bag_with_instruction_and_outcome(stage: Stage, tmp_path) -> None:
    graph = Graph(stage, tmp_path, per_episode=True)
    state = EpisodeState("aloha_language", 5, "take the green one", start_ns=10)
    graph.instruction.publish(String(data=state.instruction))
    graph.act()
    assert list(tmp_path.iterdir()) == []
    graph.episode.publish(String(data=state.to_json()))
    wait_until(lambda: list(tmp_path.iterdir()), "a bag to begin")
    graph.record()
    graph.episode.publish(String(data=state.scored(4, True, True, True).to_json()))
    wait_until(lambda: graph.node._episode.is_done, "the outcome to be heard")
    other = dataclasses.replace(state, seed=6, start_ns=20)
    graph.episode.publish(String(data=other.to_json()))
    wait_until(lambda: graph.node.measure()["bags"] == 1, "the first bag to be complete")
    graph.record()
    stage.change("recorder_node", "deactivate")
    bags = {path.name: BagFile(path) for path in tmp_path.iterdir()}
    assert bags.keys() == {"aloha_language_5_000", "aloha_language_6_000"}
    told = [EpisodeMetadata.from_custom_data(bags[name].custom_data) for name in sorted(bags)]
    assert [(m.seed, m.outcome, m.instruction) for m in told] == [
        (5, "strict", "take the green one"),
        (6, "failure", "take the green one"),
    ]
    for bag in bags.values():
        assert bag.counts["/instruction"] == 1


def test_a_folder_that_cannot_be_made_refuses_activation(stage: Stage, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    stage.start(RecorderNode, "recorder_node", {"directory": str(tmp_path / "file" / "bags")})
    stage.change("recorder_node", "configure")
    with pytest.raises(Exception, match="refused"):
        stage.change("recorder_node", "activate")


def test_a_bag_that_cannot_be_written_is_given_up_and_the_node_lives(stage: Stage, tmp_path) -> None:
    graph = Graph(stage, tmp_path / "bags", per_episode=True)
    (tmp_path / "bags").rmdir()
    (tmp_path / "bags").write_text("in the way")
    state = EpisodeState("aloha_language", 5, "take the green one", start_ns=10)
    graph.episode.publish(String(data=state.to_json()))
    wait_until(lambda: "abandoned" in graph.node.problems.present.get("recording", ""), "a reason")
    assert not graph.node.is_broken


@pytest.fixture
def marked(tmp_path):
    """Returns a robot YAML with depth and episode markers."""
    description = yaml.safe_load(find_config("robots", "aloha").read_text(encoding="utf-8"))
    description["cameras"]["top"]["depth"] = "/top/depth"
    description["episodes"] = {"topic": "/marker"}
    path = tmp_path / "marked.yaml"
    path.write_text(yaml.safe_dump(description), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "profile", "begin", "end"),
    [
        (Bool, qos.LATCHED, {"data": True}, {"data": False}),
        (String, qos.COMMAND, {"data": "start"}, {"data": "stop"}),
        (Empty, qos.SENSOR, {}, {}),
    ],
)
def test_depth_and_markers_of_the_robot_are_recorded(stage: Stage, tmp_path, marked, kind, profile, begin, end) -> None:
    parameters = {"robot": str(marked), "directory": str(tmp_path / "bags")}
    node = stage.activate(RecorderNode, "recorder_node", parameters)
    marker = stage.speak(kind, "/marker", profile)
    depth = stage.speak(CompressedImage, "/top/depth/compressedDepth")
    raw = stage.speak(Image, "/top/depth")
    joints = stage.speak(JointState, "/joint_states")

    def record(count):
        enough = node.measure()["messages"] + count
        with Repeat(lambda: joints.publish(joint_state(stage.now_ns(), HOME))):
            wait_until(lambda: node.measure()["messages"] > enough, "messages to be written")

    for step in (begin, end, begin, end):
        marker.publish(kind(**step))
        record(5)
    depth.publish(CompressedImage(format="16UC1; compressedDepth png", data=bytes(20)))
    raw.publish(Image(height=1, width=1, encoding="16UC1", step=2, data=bytes(2)))
    record(5)
    stage.change("recorder_node", "deactivate")
    bag = BagFile(next((tmp_path / "bags").iterdir()))
    assert (bag.counts["/top/depth/compressedDepth"], bag.counts["/top/depth"]) == (1, 1)
    assert bag.counts["/marker"] == 4
    spans = episode_spans(bag, load_robot(str(marked)))
    assert len(spans) == (2 if begin else 4)


def test_markers_of_another_type_are_named(stage: Stage, tmp_path, marked) -> None:
    node = stage.activate(RecorderNode, "recorder_node", {"robot": str(marked), "directory": str(tmp_path / "bags")})
    wrong = stage.client.create_publisher(Float64, "/marker", qos.COMMAND)
    told = wait_until(lambda: node.problems.present.get("episode markers"), "the type to be told")
    assert "/marker carries std_msgs/msg/Float64; markers are std_msgs/msg/Bool or" in told
    stage.client.destroy_publisher(wrong)
    wait_until(lambda: not node.problems.present.get("episode markers"), "the problem to be over")
    stage.change("recorder_node", "deactivate", "cleanup")
