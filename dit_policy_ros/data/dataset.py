"""A folder of episode bags as arrays for training, cached on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.data.bag_storage import is_storage
from dit_policy_ros.data.bag_writer import WRITING_SUFFIX
from dit_policy_ros.data.episode_cache import CacheConfig, EpisodeArrays, cached_episode
from dit_policy_ros.data.episode_spans import METADATA_KEY, episode_spans
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
        entries = [(bag, index) for bag in bags for index in _episodes(bag, robot)]
        loaded = pool.map(
            lambda entry: cached_episode(entry[0], robot, config, cache / _key(*entry), entry[1]), entries
        )
        bar = tqdm(loaded, total=len(entries), desc="Reading bags", unit="episode", disable=not progress)
        try:
            return Dataset(robot.names, config, tuple(bar))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def find_bags(folders: Sequence[Path]) -> list[Path]:
    """Returns the rosbag2 folders below some folders, sorted; also those that lost their ``metadata.yaml``.

    Raises:
        BagError: there is none.
    """
    files = [file for folder in folders for file in Path(folder).rglob("*")]
    bags = {file.parent for file in files if file.name == "metadata.yaml" or (is_storage(file) and file.is_file())}
    whole = sorted(bag for bag in bags if not any(part.endswith(WRITING_SUFFIX) for part in bag.parts))
    if not whole:
        places = ", ".join(str(folder) for folder in folders) or "no folder"
        raise BagError(f"There is no rosbag2 folder below {places}; record some with `record`, or give another folder.")
    return whole


def _episodes(bag: Path, robot: RobotSpec) -> Sequence[int | None]:
    """Returns the numbers of a bag's episodes; None for a bag that is one, which need not be read to tell."""
    file = bag / "metadata.yaml"
    tells = not file.exists() or METADATA_KEY in file.read_text(encoding="utf-8", errors="replace")
    if not (tells or robot.episode_topic or robot.episode_gap_s):
        return [None]
    spans = episode_spans(BagFile(bag), robot)
    return range(len(spans)) if len(spans) > 1 else [None]


def _key(bag: Path, index: int | None) -> str:
    """Tells apart bags of one name in different folders, and episodes of one bag."""
    key = f"{bag.name}-{hashlib.sha256(str(bag.resolve()).encode()).hexdigest()[:8]}"
    return key if index is None else f"{key}-{index}"
