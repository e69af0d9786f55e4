from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.robot import RobotSpec, load_robot
from dit_policy_ros.types import Observation, Trajectory

CONTROL_NS = 20_000_000
CAMERA_STEPS = 4


@dataclass(frozen=True)
class Recorded:
    """A written bag and what went into it."""

    path: Path
    times_ns: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    """Wanted one control period after ``times_ns``."""
    images: list[np.ndarray]
    image_times_ns: np.ndarray


def smooth_image(k: int, width: int = 48, height: int = 32) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 4 + k, columns * 4, 200 - rows * 2 - k], axis=-1).astype(np.uint8)


def write(
    path: Path, robot: RobotSpec, steps: int = 20, instruction: str | None = "lift it", seed: int = 7
) -> Recorded:
    times_ns = 1_000_000_000 + CONTROL_NS * np.arange(steps)
    rng = np.random.default_rng(seed)
    positions = rng.normal(size=(steps, len(robot.names)))
    targets = rng.normal(size=positions.shape)
    images = [smooth_image(k) for k in range(0, steps, CAMERA_STEPS)]
    metadata = EpisodeMetadata(world="aloha_transfer_cube", seed=seed, instruction=instruction or "")
    with EpisodeWriter(path, robot, metadata) as writer:
        if instruction is not None:
            writer.instruction(int(times_ns[0]), instruction)
        for k, now_ns in enumerate(times_ns.tolist()):
            shown = {} if k % CAMERA_STEPS else dict.fromkeys(robot.cameras, images[k // CAMERA_STEPS])
            joints = dict(zip(robot.names, positions[k].tolist(), strict=True))
            writer.clock(now_ns)
            writer.observation(Observation(now_ns, joints, joints, shown))
            for controller in robot.controllers:
                columns = [robot.names.index(name) for name in controller.joints]
                waypoint_ns = np.array([now_ns + CONTROL_NS])
                writer.command(
                    controller.name, now_ns, Trajectory(controller.joints, waypoint_ns, targets[k : k + 1, columns])
                )
    return Recorded(path, times_ns, positions, targets, images, times_ns[::CAMERA_STEPS])


@pytest.fixture(scope="session")
def robot() -> RobotSpec:
    return load_robot("aloha")


@pytest.fixture
def record(robot, tmp_path) -> Callable[..., Recorded]:
    """Returns a function (name, **options) that writes a small bag."""
    return lambda name="episode", **options: write(tmp_path / name, options.pop("robot", robot), **options)


@pytest.fixture(scope="session")
def recorded(robot, tmp_path_factory) -> Recorded:
    """A small bag that no test may change."""
    return write(tmp_path_factory.mktemp("bags") / "episode", robot)
