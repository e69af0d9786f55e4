"""One episode as arrays on disk: small frames, joints and commanded targets on an even time grid."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dit_policy_ros.data.bag_reader import Episode, open_episode
from dit_policy_ros.data.joint_history import interpolate
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.errors import BagError, DitPolicyError
from dit_policy_ros.robot import RobotSpec

_FORMAT = 1
_BLOCK_BYTES = 1 << 20
_ENTRY = "entry.json"
_ARRAYS = "arrays.npz"


class View(Protocol):
    """What a network sees of a camera; a frozen dataclass of plain values, such as ``policy.cameras.CameraView``.

    The policy's own views are passed in, so that training and inference crop and scale by the same code.
    """

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Takes (H, W, 3) uint8 and returns (h, w, 3) uint8, always of one size."""


@dataclass(frozen=True)
class CacheConfig:
    """What the arrays depend on besides the bag."""

    views: Mapping[str, View]
    """Camera name to what is kept of its images."""
    step_ns: int = 20_000_000
    """Of the even time grid, [ns]."""

    def describe(self, robot: RobotSpec) -> dict[str, Any]:
        """Returns plain values that differ whenever the arrays would."""
        views = {name: json.loads(json.dumps(asdict(view))) for name, view in sorted(self.views.items())}
        topics = [robot.joint_states_topic, robot.instruction_topic, *(entry.topic for entry in robot.controllers)]
        # Nothing is added for a robot without them, so that its arrays stay valid.
        topics += [*robot.other_states_topics, *robot.pose_topics.values()]
        cameras = {name: [robot.cameras[name].topic, robot.cameras[name].transport] for name in views}
        return {
            "format": _FORMAT,
            "step_ns": self.step_ns,
            "views": views,
            "joints": list(robot.names),
            "topics": topics,
            "cameras": cameras,
        }


@dataclass(frozen=True)
class EpisodeArrays:
    """One episode for training. Joints are in the order of the robot's names."""

    bag: Path
    instruction: str
    """The first one."""
    metadata: EpisodeMetadata
    start_ns: int
    step_ns: int
    positions: np.ndarray
    """(M, J) float32, measured at ``start_ns + k * step_ns``."""
    targets: np.ndarray
    """(M, J) float32, commanded at the same instants."""
    image_stamps_ns: Mapping[str, np.ndarray]
    """Camera name to (N,) int64, increasing."""
    image_positions: Mapping[str, np.ndarray]
    """Camera name to (N, J) float32, measured at the stamps of its images."""
    folder: Path
    instructions: tuple[tuple[int, str], ...] = ()
    """(instant [ns], text) of the first instruction and of every change; empty where only the first is known."""

    def instruction_index_at(self, time_ns: int) -> int:
        """Returns which of the instructions holds at an instant, 0 for the first; the first one also before it."""
        return max(sum(stamp_ns <= time_ns for stamp_ns, _ in self.instructions) - 1, 0)

    def instruction_at(self, time_ns: int) -> str:
        """Returns the instruction that holds at an instant."""
        return self.said(self.instruction_index_at(time_ns))

    def said(self, index: int) -> str:
        """Returns one of the instructions, counted from 0."""
        return self.instructions[index][1] if self.instructions else self.instruction

    @property
    def answers_ns(self) -> dict[int, int]:
        """Instant of each surprise, which is another instruction or what the metadata name, to that of its answer."""
        metadata = self.metadata
        answers_ns = {stamp_ns: stamp_ns for stamp_ns, _ in self.instructions[1:]}
        return answers_ns | dict(zip(metadata.surprises_ns, metadata.answers_ns or metadata.surprises_ns, strict=True))

    def foreseeable(self, observed_ns: int, times_ns: np.ndarray) -> np.ndarray:
        """Tells which commands can be learnt from an observation: those of someone who knew just as much.

        Until a surprise is answered, the commands are right for what was observed before it; from then on, for what
        was observed after it.

        Args:
            observed_ns: of the observation that a policy would plan on.
            times_ns: (N,) instants of commands.

        Returns:
            (N,) bool.
        """
        known = np.ones(len(times_ns), dtype=bool)
        for surprise_ns, answer_ns in self.answers_ns.items():
            known &= (times_ns < answer_ns) if observed_ns < surprise_ns else (times_ns >= answer_ns)
        return known

    @property
    def times_ns(self) -> np.ndarray:
        """Instants of ``positions`` and ``targets``, (M,) int64."""
        return self.start_ns + self.step_ns * np.arange(len(self.targets), dtype=np.int64)

    def positions_at(self, times_ns: np.ndarray) -> np.ndarray:
        """Returns (len(times_ns), J) measured positions, linear between grid points, constant beyond the ends."""
        return interpolate(times_ns, self.times_ns, self.positions)

    def targets_at(self, times_ns: np.ndarray) -> np.ndarray:
        """Returns (len(times_ns), J) commanded positions, linear between grid points, constant beyond the ends."""
        return interpolate(times_ns, self.times_ns, self.targets)

    def frames(self, camera: str) -> np.ndarray:
        """Returns (N, h, w, 3) uint8 RGB, mapped from disk and read when indexed."""
        return np.load(self.folder / f"{camera}.npy", mmap_mode="r", allow_pickle=False)


def cached_episode(
    bag: Path, robot: RobotSpec, config: CacheConfig, folder: Path, index: int | None = None
) -> EpisodeArrays:
    """Returns a bag's arrays from ``folder``, after making them if the bag or the configuration changed.

    Args:
        index: of the episode where the bag holds several.

    Raises:
        BagError: the bag cannot be read, or lacks images, commands or an instruction.
    """
    description = config.describe(robot)
    if index is not None:
        description["episode"] = [index, robot.episode_topic, robot.episode_gap_s]
    entry = _read_entry(folder)
    fresh = entry is not None and entry["config"] == description and _unchanged(bag, entry["files"])
    if not fresh:
        _build(open_episode(bag, robot, index=index), config, description, folder)
        entry = _read_entry(folder)
    return _load(bag, entry, folder, config)


def _build(episode: Episode, config: CacheConfig, description: dict[str, Any], folder: Path) -> None:
    """Writes into a folder beside the final one and swaps it in, so that a crash leaves the old or nothing."""
    temporary = folder.with_name(folder.name + ".building")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    joints = episode.joints
    start_ns = int(joints.times_ns[0])
    count = int(joints.times_ns[-1] - start_ns) // config.step_ns + 1
    times_ns = start_ns + config.step_ns * np.arange(count, dtype=np.int64)
    arrays = {"positions": joints.positions_at(times_ns), "targets": episode.targets_at(times_ns)}
    arrays = {name: values.astype(np.float32) for name, values in arrays.items()}
    for camera, view in config.views.items():
        stamps_ns, frames = _frames(episode, camera, view)
        arrays[f"stamps_ns/{camera}"] = stamps_ns
        arrays[f"positions/{camera}"] = joints.positions_at(stamps_ns).astype(np.float32)
        np.save(temporary / f"{camera}.npy", frames, allow_pickle=False)
    np.savez(temporary / _ARRAYS, **arrays)
    entry = {
        "config": description,
        "files": {str(file): _fingerprint(file, with_checksum=True) for file in _bag_files(episode.bag.path)},
        "instruction": episode.instruction,
        "instructions": _changes(episode.instructions),
        "metadata": asdict(episode.metadata),
        "start_ns": start_ns,
    }
    (temporary / _ENTRY).write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(temporary, folder)


def _changes(instructions: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Leaves out an instruction that only repeats the one before."""
    before = [None, *(text for _, text in instructions)]
    return [said for said, last in zip(instructions, before, strict=False) if said[1] != last]


def _frames(episode: Episode, camera: str, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Returns stamps (N,) and views (N, h, w, 3) in the order of the stamps."""
    stamps_ns, frames = [], []
    for stamp_ns, image in episode.frames(camera):
        try:
            frames.append(view.apply(image))
        except DitPolicyError as problem:
            raise BagError(f"{episode.bag.path}: {problem}") from problem
        stamps_ns.append(stamp_ns)
    order = np.argsort(stamps_ns, kind="stable")
    return np.array(stamps_ns, dtype=np.int64)[order], np.stack(frames)[order]


def _load(bag: Path, entry: Mapping[str, Any], folder: Path, config: CacheConfig) -> EpisodeArrays:
    # Entries made by earlier versions lack what no bag of theirs had.
    instants = {name: tuple(entry["metadata"].get(name, ())) for name in ("surprises_ns", "answers_ns")}
    metadata = {**entry["metadata"], **instants}
    with np.load(folder / _ARRAYS, allow_pickle=False) as arrays:
        return EpisodeArrays(
            bag=bag,
            instruction=entry["instruction"],
            metadata=EpisodeMetadata(**metadata),
            start_ns=entry["start_ns"],
            step_ns=config.step_ns,
            positions=arrays["positions"],
            targets=arrays["targets"],
            image_stamps_ns={camera: arrays[f"stamps_ns/{camera}"] for camera in config.views},
            image_positions={camera: arrays[f"positions/{camera}"] for camera in config.views},
            folder=folder,
            instructions=tuple((stamp_ns, text) for stamp_ns, text in entry.get("instructions", ())),
        )


def _read_entry(folder: Path) -> dict[str, Any] | None:
    file = folder / _ENTRY
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _bag_files(bag: Path) -> list[Path]:
    return [bag] if bag.is_file() else sorted(file for file in bag.iterdir() if file.is_file())


def _fingerprint(file: Path, with_checksum: bool) -> dict[str, Any]:
    status = file.stat()
    fingerprint: dict[str, Any] = {"size": status.st_size, "modified_ns": status.st_mtime_ns}
    if with_checksum:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
        fingerprint["sha256"] = digest.hexdigest()
    return fingerprint


def _unchanged(bag: Path, known: Mapping[str, Any]) -> bool:
    """Compares size and time of change first; only where they differ are the bytes read."""
    files = _bag_files(bag)
    if [str(file) for file in files] != list(known):
        return False
    for file in files:
        before = known[str(file)]
        now = _fingerprint(file, with_checksum=False)
        same = all(now[key] == before[key] for key in now)
        if not same and _fingerprint(file, with_checksum=True)["sha256"] != before["sha256"]:
            return False
    return True
