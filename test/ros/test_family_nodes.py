"""Published families on the shipped robots, from cameras and joint states to chunks, through the real policy nodes."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from harness import Repeat, Stage, joint_state, picture, wait_until
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.policy.encoders.language import LanguageFile
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.chunks import message_to_chunk
from dit_policy_ros.ros.dit_node import DitNode
from dit_policy_ros.ros.vlm_node import VlmNode

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "policy"))

from tiny_families import LEROBOT, WORDS, make_family_directory, random_weights, statistics, still

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    ("shipped", "robot_name"),
    [
        ("rdt_aloha", "aloha_rdt"),
        ("gr00t_n16_openarm", "openarm"),
        ("cogact_dual_franka", "dual_franka_poses"),
        ("lerobot_dual_franka", "dual_franka"),
        ("rdt_aloha", "openarm_poses"),
        ("rdt2_fm_dual_franka", "dual_franka_poses"),
        ("mode_dual_franka", "dual_franka_poses"),
        ("diffusion_policy_aloha", "aloha"),
    ],
)
def test_nodes_plan_for_a_robot_with_a_published_family(stage: Stage, tmp_path, shipped, robot_name) -> None:
    directory = make_family_directory(shipped, tmp_path)
    file = directory / "policy.yaml"
    description = yaml.safe_load(file.read_text())
    if robot_name == "openarm_poses":
        description.update(robot=robot_name, states={"space": "slots"}, actions={"space": "slots"})
        file.write_text(yaml.safe_dump(description))
    assert description["robot"] == robot_name
    robot = load_robot(robot_name)
    parameters = {"robot": robot_name, "policy": str(directory)}
    stage.activate(VlmNode, "vlm_node", parameters)
    stage.activate(DitNode, "dit_node", {**parameters, "execution_horizon_s": 0.05})
    messages = stage.hear(JointTrajectory, "/chunk", qos.COMMANDS_IN)
    joints = stage.speak(JointState, "/joint_states")
    cameras = {
        name: stage.speak(CompressedImage, f"{robot.cameras[name].topic}/compressed") for name in description["cameras"]
    }
    instruction = stage.speak(String, "/instruction", qos.LATCHED)

    def sense() -> None:
        now_ns = stage.now_ns()
        joints.publish(joint_state(now_ns, still(robot.names)))
        for name, publisher in cameras.items():
            publisher.publish(picture(now_ns, name))

    with Repeat(sense):
        instruction.publish(String(data=WORDS))
        wait_until(lambda: len(messages) > 2, "chunks")
    chunk = message_to_chunk(messages[-1])
    assert sorted(chunk.names) == sorted(robot.names)
    assert chunk.actions.shape == (8, len(robot.names))
    assert np.isfinite(chunk.actions).all()
    assert chunk.epoch > 0
    assert 0 < chunk.context_ns <= chunk.observation_ns


class Bomb:
    """A pickle that would write a file on loading."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def _another_family(directory: Path) -> None:
    random_weights("lerobot_multi_task_dit", LEROBOT, directory)


def _truncated(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _pickle(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(directory / "ran")))


def _renamed_pickle(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(pickle.dumps(Bomb(directory / "ran")))


def _other_statistics(directory: Path) -> None:
    other = statistics([f"panda_joint{i}" for i in range(14)])
    (directory / "statistics.json").write_text(json.dumps({"state": other, "action": other}))
    file = directory / "policy.yaml"
    description = yaml.safe_load(file.read_text())
    description.update(statistics="statistics.json", states={"space": "slots", "normalisation": "min_max"})
    file.write_text(yaml.safe_dump(description))


def _wide_language(directory: Path) -> None:
    LanguageFile({WORDS: torch.zeros(3, 7)}).save(directory / "language.safetensors")


BAD = {
    _another_family: "is of the family 'lerobot_multi_task_dit', but 'rdt' was asked for",
    _truncated: "is damaged or not a safetensors file",
    _pickle: "convert .pt and .bin files first",
    _renamed_pickle: "is damaged or not a safetensors file",
    _other_statistics: "of another robot, with panda_joint0",
    _wide_language: "language embedding is 7 wide, but this checkpoint takes 5",
}


@pytest.mark.parametrize("kind", [DitNode, VlmNode])
def test_bad_input_is_refused_with_its_reason_before_anything_is_active(stage: Stage, tmp_path, kind, capfd) -> None:
    good = make_family_directory("rdt_aloha", tmp_path / "good")
    for number, (spoil, reason) in enumerate(BAD.items()):
        directory = Path(shutil.copytree(good, tmp_path / spoil.__name__))
        spoil(directory)
        name = f"node_{number}"
        stage.start(kind, name, {"robot": "aloha_rdt", "policy": str(directory)})
        with pytest.raises(ConfigError):
            stage.change(name, "configure")
        assert stage.state(name) == "unconfigured"
        assert reason in capfd.readouterr().err
        assert not (directory / "ran").exists()
        assert stage.publishers_of(name) == set()
