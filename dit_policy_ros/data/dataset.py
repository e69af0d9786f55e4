"""A folder of episode bags as arrays for training, cached on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dit_policy_ros.data.bag_writer import WRITING_SUFFIX
from dit_policy_ros.data.episode_cache import CacheConfig, EpisodeArrays, cached_episode
from dit_policy_ros.data.running_statistics import RunningStatistics, Statistics
from dit_policy_ros.errors import BagError, one_of
from dit_policy_ros.robot import RobotSpec


@dataclass(frozen=True)
class Dataset:
    """Episodes with one robot and one configuration."""

    names: tuple[str, ...]
    """Joint names, the columns of every position and target."""
    config: CacheConfig
    episodes: tuple[EpisodeArrays, ...]

    def statistics(self) -> tuple[Statistics, Statistics]:
        """Returns the statistics of measured positions and of commanded targets, over the time grids."""
        positions, targets = RunningStatistics(len(self.names)), RunningStatistics(len(self.names))
        for episode in self.episodes:
            positions.add(episode.positions)
            targets.add(episode.targets)
        return positions.result(), targets.result()

    def stack(self, camera: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns all frames of a camera in memory, and where each episode's begin.

        Returns:
            (sum of N, h, w, 3) uint8, and (episodes + 1,) int64 offsets into it.

        Raises:
            BagError: the dataset has no such camera.
        """
        if camera not in self.config.views:
            raise BagError(one_of("Camera", camera, self.config.views))
        offsets = np.cumsum([0, *(len(episode.image_stamps_ns[camera]) for episode in self.episodes)])
        frames = np.empty((offsets[-1], *self.episodes[0].frames(camera).shape[1:]), dtype=np.uint8)
        for episode, begin, end in zip(self.episodes, offsets[:-1], offsets[1:], strict=True):
            frames[begin:end] = episode.frames(camera)
        return frames, offsets


def load_dataset(
    folders: Sequence[Path],
    robot: RobotSpec,
    config: CacheConfig,
    cache: Path,
    workers: int = 2,
    progress: bool = True,
) -> Dataset:
    """Loads every bag below some folders, through a cache that rebuilds only what changed.

    Args:
        folders: searched for rosbag2 folders at any depth; unfinished ``.writing`` ones are left out.
        robot: whose joints, topics and cameras to read.
        config: which views of the cameras to keep, and the time grid.
        cache: folder for the arrays; may be deleted at any time.
        workers: threads that decode.
        progress: show a bar.

    Returns:
        Episodes in the order of their paths.

    Raises:
        BagError: there is no bag, or one of them cannot be used; the text names it.
    """
    bags = find_bags(folders)
    unknown = [camera for camera in config.views if camera not in robot.cameras]
    if unknown:
        raise BagError(one_of("Camera", unknown[0], robot.cameras))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        loaded = pool.map(lambda bag: cached_episode(bag, robot, config, cache / _key(bag)), bags)
        bar = tqdm(loaded, total=len(bags), desc="Reading bags", unit="episode", disable=not progress)
        try:
            return Dataset(robot.names, config, tuple(bar))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def find_bags(folders: Sequence[Path]) -> list[Path]:
    """Returns the rosbag2 folders below some folders, sorted.

    Raises:
        BagError: there is none.
    """
    bags = {file.parent for folder in folders for file in Path(folder).rglob("metadata.yaml")}
    whole = sorted(bag for bag in bags if not any(part.endswith(WRITING_SUFFIX) for part in bag.parts))
    if not whole:
        places = ", ".join(str(folder) for folder in folders) or "no folder"
        raise BagError(f"There is no rosbag2 folder below {places}; record some with `record`, or give another folder.")
    return whole


def _key(bag: Path) -> str:
    """Tells apart bags of one name in different folders."""
    return f"{bag.name}-{hashlib.sha256(str(bag.resolve()).encode()).hexdigest()[:8]}"
