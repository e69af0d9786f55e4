"""A bag played into real nodes: the chunks they make are those that are made from the bag."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from harness import DOMAIN, Stage, wait_until
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String
from tiny_policy import HOME, save_tiny_policy
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.__main__ import main
from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.images import encode_jpeg
from dit_policy_ros.errors import BagError
from dit_policy_ros.evaluate.parity import ChunkRepeater
from dit_policy_ros.policy.checkpoint import load_policy
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.chunks import message_to_chunk
from dit_policy_ros.ros.dit_node import DitNode
from dit_policy_ros.ros.executor_node import ExecutorNode
from dit_policy_ros.ros.player import BagPlayer, inputs_of
from dit_policy_ros.ros.vlm_node import VlmNode
from dit_policy_ros.sim.body import IMAGE_SIZES
from dit_policy_ros.types import Trajectory

pytestmark = pytest.mark.ros
MS = 1_000_000
ROBOT = load_robot("aloha")
START_MS, LENGTH_MS = 2_000, 3_000
LISTENED = ("/joint_states", "/instruction", *(f"{camera.topic}/compressed" for camera in ROBOT.cameras.values()))


def write_bag(path):
    """Joints along lines at 50 Hz; every 100 ms another picture of each camera, that of the reference camera last."""
    rng = np.random.default_rng(4)
    left = ROBOT.controllers[0]
    with EpisodeWriter(path, ROBOT) as writer:
        for ms in range(START_MS, START_MS + LENGTH_MS, 20):
            if ms == START_MS:
                writer.instruction(ms * MS, "red")
            if ms == START_MS + LENGTH_MS // 2:
                writer.instruction(ms * MS, "blue")
            # Along lines, so that a sample that a busy machine loses changes no interpolation.
            positions = HOME + 1e-4 * (ms - START_MS) * np.cos(np.arange(14))
            writer.joint_state(ms * MS, ROBOT.names, positions)
            command = messages.joint_trajectory(trajectory(left, ms, positions[:7]))
            put(writer, left.topic, messages.JOINT_TRAJECTORY, ms, command)
            if ms % 100 == 0:
                for late_ms, camera in enumerate(("top", "right_wrist", "left_wrist"), start=1):
                    width, height = IMAGE_SIZES[camera]
                    small = rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
                    jpeg = encode_jpeg(np.kron(small, np.ones((40, 40, 1), np.uint8)))
                    image = messages.compressed_image(ms * MS, camera, jpeg, "jpeg")
                    topic = f"{ROBOT.cameras[camera].topic}/compressed"
                    put(writer, topic, messages.COMPRESSED_IMAGE, ms + 4 * late_ms, image)
    return path


def trajectory(controller, ms, positions):
    return Trajectory(controller.joints, np.array([ms * MS]), positions[None])


def put(writer, topic, msgtype, ms, message):
    writer.serialized(topic, msgtype, ms * MS, bytes(messages.typestore().serialize_cdr(message, msgtype)))


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("bags") / "wave")


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A policy whose chunks depend on what it sees: an untrained one ends in zeros."""
    from safetensors.torch import load_file, save_file

    folder = save_tiny_policy(tmp_path_factory.mktemp("models") / "lively")
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    moved = {
        k: v + 0.05 * torch.randn(v.shape, generator=generator) if v.is_floating_point() else v
        for k, v in weights.items()
    }
    save_file(moved, folder / "model.safetensors")
    return folder


def test_chunks_of_live_nodes_are_those_of_the_bag(stage: Stage, bag, policy) -> None:
    torch.set_num_threads(1)
    options = {"policy": str(policy), "use_sim_time": True}
    player = BagPlayer(BagFile(bag), inputs_of(ROBOT), with_clock=True, context=stage.context)
    try:
        stage.activate(ExecutorNode, "executor_node", {"use_sim_time": True})
        stage.activate(VlmNode, "vlm_node", options)
        stage.activate(DitNode, "dit_node", {**options, "execution_horizon_s": 0.1})
        heard = stage.hear(JointTrajectory, "/chunk", qos.COMMANDS_IN)
        commands = stage.hear(JointTrajectory, ROBOT.controllers[0].topic, qos.COMMANDS_IN)
        assert player.wait_for_listeners(LISTENED, 20.0)
        played = player.play(rate=0.5)
        assert played == 150 + 2 + 90
    finally:
        player.close()
    chunks = [message_to_chunk(message) for message in heard]
    assert len(chunks) >= 5
    found = ChunkRepeater(open_episode(bag, ROBOT), load_policy(policy)).compare(chunks)
    # Actions travel as float64 and networks count in float32 on one thread; nothing is left to differ by.
    assert max(parity.difference for parity in found) < 1e-6
    # A new epoch may plan once more from an observation, but with a context of its own.
    assert len({(parity.observation_ns, parity.context_ns) for parity in found}) == len(found)
    assert np.ptp([chunk.actions[-1] for chunk in chunks], axis=0).max() > 0.01
    # What was recorded of the controllers is not played; what is there comes from the live executor.
    assert all(len(message.points) > 1 for message in commands)


def test_another_bag_gives_other_chunks(bag, policy, tmp_path) -> None:
    """The comparison can fail: other images, or an image that was not recorded."""
    torch.set_num_threads(1)
    episode, loaded = open_episode(bag, ROBOT), load_policy(policy)
    repeater = ChunkRepeater(episode, loaded)
    stamps_ns = episode.image_stamps_ns("left_wrist")
    observation = next(repeater._observations(loaded.fast_cameras, int(stamps_ns[4])))
    context = loaded.encode(next(repeater._observations(loaded.slow_cameras, int(stamps_ns[2]))), "red", 1)
    chunk = replace(
        loaded.act(observation, context), observation_ns=int(stamps_ns[4]), context_ns=int(stamps_ns[2]), epoch=1
    )
    assert repeater.compare([chunk])[0].difference == 0.0
    assert repeater.compare([replace(chunk, context_ns=int(stamps_ns[9]))])[0].difference > 1e-4
    assert repeater.compare([replace(chunk, observation_ns=int(stamps_ns[7]))])[0].difference > 1e-3
    with pytest.raises(BagError, match="it is the recording of another run"):
        repeater.compare([replace(chunk, observation_ns=5)])


def test_what_is_played_is_what_was_recorded(stage: Stage, bag) -> None:
    instructions = stage.hear(String, "/instruction", qos.LATCHED)
    clocks = stage.hear(Clock, "/clock")
    trajectories = stage.hear(JointTrajectory, ROBOT.controllers[0].topic, qos.COMMANDS_IN)
    player = BagPlayer(BagFile(bag).cut(START_MS * MS, (START_MS + 400) * MS), with_clock=True, context=stage.context)
    try:
        player.wait_for_listeners(["/instruction", ROBOT.controllers[0].topic], 20.0)
        assert player.play(rate=4.0) == 20 + 20 + 4 * 3 + 1
        wait_until(lambda: len(trajectories) >= 10, "the recorded commands")
    finally:
        player.close()
    assert [message.data for message in instructions] == ["red"]
    told_ns = [message.clock.sec * 1_000_000_000 + message.clock.nanosec for message in clocks]
    assert told_ns == sorted(told_ns)
    assert START_MS * MS <= told_ns[-1] <= (START_MS + 400) * MS


def test_nothing_to_play_is_named(stage: Stage, bag) -> None:
    with pytest.raises(BagError, match=r"has nothing to play\. Topics with messages: /instruction, /joint_states"):
        BagPlayer(BagFile(bag), ["/elsewhere"], context=stage.context)


def test_the_command_plays_what_a_policy_takes(bag, monkeypatch, capsys) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    assert main(["play", str(bag), "--clock", "--robot", "aloha", "--rate", "20", "--delay", "0"]) == 0
    assert "Published 242 messages." in capsys.readouterr().out
    assert main(["play", str(bag), "--rate", "0"]) == 2
    assert main(["play", str(bag), "--episode", "0"]) == 2
    assert "--episode needs --robot" in capsys.readouterr().err
    options = ["--robot", "aloha", "--episode", "0", "--topic", "/clock", "--rate", "50", "--delay", "0"]
    assert main(["play", str(bag), *options]) == 0
