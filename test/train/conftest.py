"""A tiny recipe and a few tiny recordings of a two-joint robot."""

import numpy as np
import pytest

from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.robot import load_robot
from dit_policy_ros.train.phrase import Phrase
from dit_policy_ros.train.scenes import Scenes
from dit_policy_ros.types import Trajectory

ROBOT = """
name: tiny
arms:
  left:
    left_a: {slot: left_arm_joint_0_pos, position: [-2, 2], velocity: 3, acceleration: 10}
    left_grip: {slot: left_gripper_open, position: [0, 1], velocity: 6, acceleration: 60}
cameras:
  top: {topic: /top, transport: compressed, max_age_s: 1.0}
  wrist: {topic: /wrist, transport: raw, max_age_s: 1.0}
controllers:
  arm: {type: joint_trajectory, joints: [left_a, left_grip]}
joint_states: {topic: /joint_states, max_age_s: 0.5}
"""
RECIPE = """
slow_camera: {name: top, source: [32, 24], box: [0, 0, 1, 1], size: [16, 16]}
fast_cameras:
  - {name: wrist, source: [32, 24], box: [0, 0, 1, 1], size: [16, 16]}
network: {joints: 2, horizon: 16, width: 32, blocks: 1, heads: 2, fast_cameras: 1, slow_keypoints: 4, fast_keypoints: 4,
  text_width: 32, condition: 16}
batch: 8
learning_rate: 0.003
warmup_steps: 5
unknown_words: 0.0
left_out_words: 0.0
"""


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """(folder of bags, robot YAML, recipe YAML). The joint goes to where the instruction says, then the hand closes."""
    folder = tmp_path_factory.mktemp("recordings")
    robot_file, recipe_file = folder / "tiny.yaml", folder / "recipe.yaml"
    robot_file.write_text(ROBOT)
    recipe_file.write_text(RECIPE)
    robot = load_robot(robot_file)
    rng = np.random.default_rng(0)
    for number in range(4):
        word, goal = ("up", 1.0) if number % 2 else ("down", -1.0)
        metadata = EpisodeMetadata(instruction=f"go {word}", seed=number)
        with EpisodeWriter(folder / "bags" / f"episode_{number}", robot, metadata) as writer:
            start_ns = 10**9
            writer.instruction(start_ns, f"go {word}")
            path = goal * np.minimum(np.arange(60) / 40, 1.0)
            grip = np.where(np.arange(60) < 40, 1.0, 0.0)
            positions = np.stack([path, grip], axis=1)
            for step in range(60):
                now_ns = start_ns + step * 20_000_000
                writer.joint_state(now_ns, robot.names, positions[step])
                if step % 4 == 0:
                    image = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
                    writer.raw_image("wrist", now_ns, image)
                    writer.compressed_image("top", now_ns, _jpeg(image))
                if step % 10 == 0:
                    times_ns = now_ns + 20_000_000 * np.arange(min(20, 60 - step))
                    writer.command("arm", now_ns, Trajectory(robot.names, times_ns, positions[step : step + 20]))
    return folder / "bags", robot_file, recipe_file


def _jpeg(image):
    from dit_policy_ros.data.images import encode_jpeg

    return encode_jpeg(image)


@pytest.fixture(scope="session")
def spots():
    """A bright spot on grey and a dark one; either can be asked for."""
    rng = np.random.default_rng(0)
    images = np.full((400, 16, 16, 3), 128, np.uint8)
    places = np.full((400, 2, 6), np.nan, np.float32)
    for index in range(400):
        cells = rng.choice(64, 2, replace=False)
        for asked, value in enumerate((255, 0)):
            y, x = divmod(int(cells[asked]), 8)
            images[index, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] = value
            places[index, asked, :2] = (x - 3.5) / 4, (y - 3.5) / 4
    ask = tuple(
        lambda rng, word=word, group=group: Phrase(word, group) for group, word in enumerate(("white", "black"))
    )
    return Scenes(images, ask, places)
