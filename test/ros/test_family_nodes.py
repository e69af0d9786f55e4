"""Published families on the shipped robots, from cameras and joint states to chunks, through the real policy nodes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from harness import Repeat, Stage, joint_state, picture, wait_until
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.chunks import message_to_chunk
from dit_policy_ros.ros.dit_node import DitNode
from dit_policy_ros.ros.vlm_node import VlmNode

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "policy"))

from tiny_families import WORDS, make_family_directory, still

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    ("shipped", "robot_name"),
    [
        ("rdt_aloha", "aloha_rdt"),
        ("gr00t_n16_openarm", "openarm"),
        ("cogact_dual_franka", "dual_franka_poses"),
        ("lerobot_dual_franka", "dual_franka"),
        ("rdt_aloha", "openarm_poses"),
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
    assert chunk.names == robot.names
    assert chunk.actions.shape == (8, len(robot.names))
    assert np.isfinite(chunk.actions).all()
    assert chunk.epoch > 0
    assert 0 < chunk.context_ns <= chunk.observation_ns
