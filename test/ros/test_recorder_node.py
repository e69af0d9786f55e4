from __future__ import annotations

import dataclasses

import pytest
from harness import HOME, ROBOT, Repeat, Stage, joint_state, picture, swing, wait_until
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.data.metadata import EpisodeMetadata
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
