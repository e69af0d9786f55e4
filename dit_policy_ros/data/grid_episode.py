"""An episode as other formats hold it: everything at equally spaced instants. To it from a bag, and from it to one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dit_policy_ros.data.bag_reader import Episode
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.data.recorded_body import NewestImage, RecordedTargets
from dit_policy_ros.errors import BagError
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.types import NS_PER_S, Observation, Trajectory

Frames = Iterator[tuple[int, np.ndarray]]
"""(stamp [ns], (H, W, 3) uint8 RGB) of every instant in order; the same stamp again is the same image."""


@dataclass(frozen=True)
class GridEpisode:
    """N instants of J joints."""

    names: tuple[str, ...]
    times_ns: np.ndarray
    """(N,) int64, increasing."""
    states: np.ndarray
    """(N, J) measured."""
    actions: np.ndarray
    """(N, J) commanded at the same instants."""
    instructions: tuple[str, ...]
    """(N,) the one that holds at each instant."""
    cameras: Mapping[str, Callable[[], Frames]]
    """Camera name to a function that begins to decode its images; one image is in memory at a time."""
    velocities: np.ndarray | None = None
    """(N, J); None where they were not measured."""


def grid_times_ns(start_ns: int, end_ns: int, frames_per_s: float) -> np.ndarray:
    """Returns the instants from ``start_ns`` to ``end_ns`` at a rate, each rounded on its own, (N,) int64."""
    count = int((end_ns - start_ns) * frames_per_s // NS_PER_S) + 1
    return start_ns + np.round(np.arange(count) * (NS_PER_S / frames_per_s)).astype(np.int64)


def sample_episode(episode: Episode, frames_per_s: float, cameras: Iterable[str]) -> GridEpisode:
    """Samples a recording from the first instant at which everything is known to the last.

    Joints are linear between samples, commands between waypoints; an image is the newest one that is not newer.

    Raises:
        BagError: a camera or the commands are missing, or nothing overlaps.
    """
    cameras = tuple(cameras)
    joints, targets = episode.joints, RecordedTargets(episode)
    firsts_ns = [int(episode.image_stamps_ns(camera).min()) for camera in cameras]
    times_ns = grid_times_ns(int(joints.times_ns[0]), int(joints.times_ns[-1]), frames_per_s)
    actions = targets.at(times_ns)
    known = np.isfinite(actions).all(axis=1) & (times_ns >= max(firsts_ns, default=int(times_ns[0])))
    if not known.any():
        raise BagError(f"{episode.bag.path}: joints, commands and images have no instant in common; nothing to export.")
    first, last = (int(index) for index in np.flatnonzero(known)[[0, -1]])
    times_ns, actions = times_ns[first : last + 1], actions[first : last + 1]
    return GridEpisode(
        names=episode.robot.names,
        times_ns=times_ns,
        states=joints.positions_at(times_ns),
        actions=actions,
        instructions=_instructions_at(episode, times_ns),
        cameras={camera: lambda camera=camera: _newest(episode, camera, times_ns) for camera in cameras},
    )


def write_grid_episode(path: Path, robot: RobotSpec, grid: GridEpisode, metadata: EpisodeMetadata) -> Path:
    """Writes a bag: joint states and commands at every instant, each image once, at its own stamp.

    Returns:
        The path.

    Raises:
        BagError: the folder exists, or a joint or camera is not the robot's.
    """
    if set(grid.names) != set(robot.names):
        raise BagError(
            f"The episode has joints {', '.join(grid.names)}, but robot {robot.name} has {', '.join(robot.names)}; "
            "give the robot description that it was recorded with."
        )
    order = [grid.names.index(name) for name in robot.names]
    states, actions = grid.states[:, order], grid.actions[:, order]
    velocities = None if grid.velocities is None else grid.velocities[:, order]
    streams = {camera: begin() for camera, begin in grid.cameras.items()}
    shown_ns: dict[str, int] = {}
    said = None
    with EpisodeWriter(path, robot, metadata) as writer:
        for k, now_ns in enumerate(grid.times_ns.tolist()):
            if grid.instructions[k] != said:
                said = grid.instructions[k]
                writer.instruction(now_ns, said)
            images, stamps_ns = {}, {}
            for camera, stream in streams.items():
                stamp_ns, image = next(stream)
                if shown_ns.get(camera) != stamp_ns:
                    images[camera], stamps_ns[camera], shown_ns[camera] = image, stamp_ns, stamp_ns
            positions = dict(zip(robot.names, states[k].tolist(), strict=True))
            speeds = {} if velocities is None else dict(zip(robot.names, velocities[k].tolist(), strict=True))
            writer.observation(Observation(now_ns, positions, speeds, images, stamps_ns))
            for controller in robot.controllers:
                columns = [robot.names.index(name) for name in controller.joints]
                waypoint = Trajectory(controller.joints, np.array([now_ns]), actions[k : k + 1, columns])
                writer.command(controller.name, now_ns, waypoint)
    return path


def _instructions_at(episode: Episode, times_ns: np.ndarray) -> tuple[str, ...]:
    known_ns = np.array([log_ns for log_ns, _ in episode.instructions], dtype=np.int64)
    texts = [episode.instruction, *(text for _, text in episode.instructions)]
    return tuple(texts[index] for index in np.searchsorted(known_ns, times_ns, side="right"))


def _newest(episode: Episode, camera: str, times_ns: np.ndarray) -> Frames:
    newest = NewestImage(episode.encoded_frames(camera))
    for now_ns in times_ns.tolist():
        yield newest.at(now_ns)
