"""The values that flow and the ports they flow through.

Values are frozen and hold numpy only. Times are integer nanoseconds, quantities are SI, angles are radians,
a gripper is 0 (closed) to 1 (open). What is missing is absent, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

NS_PER_S = 1_000_000_000


def seconds(duration_ns: int) -> float:
    """Returns a duration in [s]."""
    return duration_ns / NS_PER_S


def nanoseconds(duration_s: float) -> int:
    """Returns a duration in [ns], rounded."""
    return round(duration_s * NS_PER_S)


@dataclass(frozen=True)
class Observation:
    """What the robot saw and felt at one instant."""

    stamp_ns: int
    """The instant, on the ROS clock."""
    positions: Mapping[str, float]
    """Joint name to position, [rad], [m], or 0..1 for a gripper."""
    velocities: Mapping[str, float] = field(default_factory=dict)
    """Joint name to velocity, unit of the position per second. May lack joints."""
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Camera name to RGB image, (H, W, 3) uint8."""
    image_stamps_ns: Mapping[str, int] = field(default_factory=dict)
    """Camera name to the instant of its image; a camera absent here is as old as the observation."""
    earlier_images: tuple[Mapping[str, np.ndarray], ...] = ()
    """Older frames as ``images``, the oldest first, for policies that look at several."""
    depths: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Camera name to depth, (H, W) float32 [m]."""
    goal_image: np.ndarray | None = None
    """(H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class Context:
    """What the slow system made of one observation and an instruction."""

    stamp_ns: int
    """Stamp of the observation it was made from; its age is a subtraction."""
    instruction: str
    epoch: int
    """Number of the instruction or reset it belongs to; results of an older epoch are dropped."""
    tensors: Mapping[str, np.ndarray]
    """Understood by the policy that made it, and by nobody else."""

    def age_ns(self, now_ns: int) -> int:
        """Returns the time since the observation behind this context, [ns]."""
        return now_ns - self.stamp_ns


@dataclass(frozen=True)
class ActionChunk:
    """Actions for equally spaced instants: ``actions[k]`` is for ``start_ns + k * step_ns``."""

    names: tuple[str, ...]
    """Channel names, usually joint names of the robot."""
    start_ns: int
    step_ns: int
    actions: np.ndarray
    """(K, len(names)) float64, absolute targets in the unit of each channel."""
    observation_ns: int = 0
    """Stamp of the observation the chunk was made from."""
    context_ns: int = 0
    """Stamp of the observation behind the context."""
    epoch: int = 0
    committed: int = 0
    """How many leading actions repeat what was already going to be executed."""

    @property
    def end_ns(self) -> int:
        """Instant of the last action."""
        return self.start_ns + (len(self.actions) - 1) * self.step_ns

    @property
    def times_ns(self) -> np.ndarray:
        """Instants of all actions, (K,) int64."""
        return self.start_ns + self.step_ns * np.arange(len(self.actions), dtype=np.int64)


@dataclass(frozen=True)
class Trajectory:
    """Waypoints of named joints, as a trajectory controller takes them."""

    names: tuple[str, ...]
    times_ns: np.ndarray
    """(K,) int64, absolute instants, strictly increasing."""
    positions: np.ndarray
    """(K, len(names)) float64."""
    velocities: np.ndarray | None = None
    """(K, len(names)) float64, or None to leave them to the controller."""


class Policy(Protocol):
    """A two-speed policy. Implementations live in ``policy/``.

    It may have more attributes: ``commit_multiple``, the committed prefix is a multiple of this many actions;
    ``is_news(before, context)``, whether a context is so different that a chunk is planned at once; and
    ``execution_horizon_s``, how long a chunk is followed where nobody says otherwise, 0 for two thirds of it.
    """

    @property
    def horizon(self) -> int:
        """Number of actions in a chunk."""

    @property
    def step_ns(self) -> int:
        """Time between two actions, [ns]."""

    @property
    def slow_cameras(self) -> tuple[str, ...]:
        """Cameras that ``encode`` looks at."""

    @property
    def fast_cameras(self) -> tuple[str, ...]:
        """Cameras that ``act`` looks at."""

    def encode(self, observation: Observation, instruction: str, epoch: int = 0) -> Context:
        """System 2: everything that depends only on slow inputs.

        Raises:
            PolicyError: a slow camera is missing from the observation.
        """

    def act(self, observation: Observation, context: Context, committed: ActionChunk | None = None) -> ActionChunk:
        """System 1: a chunk that starts at the observation's stamp.

        Args:
            committed: what will surely be executed from ``observation.stamp_ns`` on, on the policy's own
                time grid; the chunk begins with exactly these actions. None where nothing is committed.

        Raises:
            PolicyError: a joint or fast camera is missing, or a value is not finite.
        """


class Body(Protocol):
    """What a policy drives: a real robot, a simulated one, or a recorded one."""

    def now_ns(self) -> int:
        """Returns the body's clock, [ns]."""

    def observe(self, cameras: tuple[str, ...]) -> Observation:
        """Returns the newest observation with images of these cameras."""

    def command(self, trajectory: Trajectory) -> None:
        """Hands one trajectory to the controller that owns its joints."""
