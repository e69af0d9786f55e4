"""A recording as a body: it is seen and felt as it was, and what it is told is noted instead of done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from dit_policy_ros.data.bag_reader import Episode
from dit_policy_ros.data.commands import COMMAND_TYPES, spliced
from dit_policy_ros.data.joint_history import interpolate
from dit_policy_ros.errors import BagError
from dit_policy_ros.types import Observation, Trajectory

PERIOD_NS = 20_000_000


class RecordedTargets:
    """What the controllers were asked for in a recording, for any instant."""

    def __init__(self, episode: Episode) -> None:
        """Joins all commands.

        Raises:
            BagError: a controller was sent nothing.
        """
        names = episode.robot.names
        self._width = len(names)
        self._parts: list[tuple[list[int], np.ndarray, np.ndarray]] = []
        for controller in episode.robot.controllers:
            commands = episode.commands[controller.name]
            if not commands:
                unread = "" if controller.type in COMMAND_TYPES else f" (commands of {controller.type} are not read)"
                raise BagError(
                    f"{episode.bag.path} has no command for {controller.name} ({controller.topic}), so there is "
                    f"nothing to compare a policy with{unread}; record that topic, or name another one in the robot "
                    "YAML."
                )
            self._parts.append(([names.index(joint) for joint in controller.joints], *spliced(commands)))

    def at(self, times_ns: np.ndarray) -> np.ndarray:
        """Returns (len(times_ns), joints); NaN before the first waypoint and after the last."""
        targets = np.empty((len(times_ns), self._width))
        for columns, known_ns, positions in self._parts:
            values = interpolate(times_ns, known_ns, positions)
            values[(times_ns < known_ns[0]) | (times_ns > known_ns[-1])] = np.nan
            targets[:, columns] = values
        return targets


class RecordedBody:
    """Implements ``types.Body`` on an episode, under a clock of its own that ``step`` advances."""

    def __init__(self, episode: Episode, cameras: tuple[str, ...] = (), period_ns: int = PERIOD_NS) -> None:
        """Puts the clock to the first joint state.

        Args:
            cameras: that will be looked at.
            period_ns: of a step.

        Raises:
            BagError: one of the cameras is unknown or has no images.
        """
        self.episode = episode
        self.commands: list[tuple[int, Trajectory]] = []
        """(instant, trajectory) of everything it was told."""
        self.end_ns = int(episode.joints.times_ns[-1])
        """Last joint state."""
        self._period_ns = period_ns
        self._now_ns = int(episode.joints.times_ns[0])
        lose, robot = episode.bag.lose, episode.robot
        self._streams = {
            camera: NewestImage(episode.encoded_frames(camera), partial(lose, episode.image_topic(camera)[0]))
            for camera in cameras
        }
        self._depths = {
            camera: NewestImage(episode.encoded_depths(camera), partial(lose, robot.cameras[camera].depth_topic))
            for camera in cameras
            if episode.has_depth(camera)
        }

    @property
    def instruction(self) -> str:
        """The newest one at the clock; before the first, the first."""
        heard = [text for log_ns, text in self.episode.instructions if log_ns <= self._now_ns]
        return heard[-1] if heard else self.episode.instruction

    @property
    def is_over(self) -> bool:
        """Whether the clock is past the last joint state."""
        return self._now_ns > self.end_ns

    def now_ns(self) -> int:
        """Returns the clock, in the time of the recording's stamps, [ns]."""
        return self._now_ns

    def observe(self, cameras: tuple[str, ...] = ()) -> Observation:
        """Returns joints interpolated at the clock, and of each camera the newest image that is not newer.

        Only the images asked for are decoded. A camera without an image yet is absent. Where a damaged bag is read
        as far as it is whole, the image before stands in for one that cannot be decoded.

        Raises:
            BagError: an image cannot be decoded, in a bag that must be whole.
        """
        positions = self.episode.joints.positions_at(np.array([self._now_ns]))[0]
        seen = {camera: self._streams[camera].at(self._now_ns) for camera in cameras}
        deep = {camera: self._depths[camera].at(self._now_ns) for camera in cameras if camera in self._depths}
        known = {camera: entry for camera, entry in seen.items() if entry is not None}
        return Observation(
            stamp_ns=self._now_ns,
            positions=dict(zip(self.episode.robot.names, positions.tolist(), strict=True)),
            images={camera: image for camera, (_, image) in known.items()},
            image_stamps_ns={camera: stamp_ns for camera, (stamp_ns, _) in known.items()},
            depths={camera: entry[1] for camera, entry in deep.items() if entry is not None},
        )

    def command(self, trajectory: Trajectory) -> None:
        """Notes a trajectory; nothing moves."""
        self.commands.append((self._now_ns, trajectory))

    def step(self) -> None:
        """Advances the clock by a period."""
        self._now_ns += self._period_ns


class NewestImage:
    """The newest image at an instant that only grows. Keeps one decoded image."""

    def __init__(
        self,
        frames: Iterator[tuple[int, Callable[[], np.ndarray]]],
        lose: Callable[[int, BagError], None] | None = None,
    ) -> None:
        """Looks at the first image.

        Args:
            frames: (stamp [ns], function that decodes) in the order of recording; at least one.
            lose: is told of stamp and error where an image cannot be decoded; without it the error is raised.
        """
        self._frames, self._lose = frames, lose
        self._next: tuple[int, Callable[[], np.ndarray]] | None = next(self._frames)
        self._newest: tuple[int, Callable[[], np.ndarray]] | None = None
        """Not decoded yet."""
        self._newest_ns: int | None = None
        self._decoded: tuple[int, np.ndarray] | None = None

    def at(self, now_ns: int) -> tuple[int, np.ndarray] | None:
        """Returns (stamp [ns], image), or None before the first.

        Raises:
            BagError: it cannot be decoded.
        """
        while self._next is not None and self._next[0] <= now_ns:
            if self._newest_ns is None or self._next[0] > self._newest_ns:
                self._newest, self._newest_ns = self._next, self._next[0]
            self._next = next(self._frames, None)
        if self._newest is not None:
            stamp_ns, decode = self._newest
            try:
                self._decoded = (stamp_ns, decode())
            except BagError as problem:
                if self._lose is None:
                    raise
                self._lose(stamp_ns, problem)
            self._newest = None
        return self._decoded
