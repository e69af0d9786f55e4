"""What a report shows of one episode, simulated or live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.evaluate.episode import EpisodeResult
from dit_policy_ros.evaluate.smoothness import Smoothness
from dit_policy_ros.runtime.context_watch import ContextWait
from dit_policy_ros.types import seconds


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode; T control periods, C chunks that took effect, J joints. What was not measured is NaN or empty."""

    seed: int
    world: str
    instruction: str
    sticky: bool
    """The environment's largest reward was reached once."""
    strict: bool
    """The task was done, and still is at the end."""
    max_reward: int
    """Of the environment, not of this episode."""
    joint_names: tuple[str, ...]
    times_s: np.ndarray
    """(T,) since the start of the episode."""
    rewards: np.ndarray
    """(T,) int64."""
    commanded: np.ndarray
    """(T, J) [rad], or 0..1 for a gripper."""
    measured: np.ndarray
    """(T, J)."""
    context_ages_s: np.ndarray
    """(T,) age of the observation behind the context that acts."""
    splice_times_s: np.ndarray
    """(C,)."""
    events: tuple[tuple[float, str], ...] = ()
    """(time [s], what happened): the executor's transitions with their reasons."""
    refusals: Mapping[str, int] = field(default_factory=dict)
    """Refused chunks by reason."""
    starved: Mapping[str, int] = field(default_factory=dict)
    """Due inferences without an observation, by reason."""
    position_hits: int = 0
    """Waypoints clamped by a position limit."""
    velocity_hits: int = 0
    """Waypoints clamped by a speed limit."""
    encodes: int = 0
    chunks: int = 0
    latencies_s: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Name to measured durations, (N,) each; the virtual clock measures none."""
    incidents: Mapping[str, int] = field(default_factory=dict)
    """What went wrong in the two loops, by name."""
    smoothness: Smoothness | None = None
    context_wait: ContextWait | None = None
    stages_ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Stage of the live nodes, such as 'dit_node: act', to percentile to [ms]."""
    video: str = ""
    """Path of its video, relative to the report."""
    bag: str = ""
    """Path of its recording, relative to the report."""

    def __post_init__(self) -> None:
        steps, joints = len(self.times_s), len(self.joint_names)
        shapes = {
            "rewards": (steps,),
            "commanded": (steps, joints),
            "measured": (steps, joints),
            "context_ages_s": (steps,),
            "seam_positions": (len(self.splice_times_s), joints),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ConfigError(f"Episode {self.seed}: {name} is {getattr(self, name).shape}; it must be {shape}.")

    @property
    def outcome(self) -> str:
        """'strict', 'sticky' (reached, but not kept) or 'failure'."""
        return "strict" if self.strict else "sticky" if self.sticky else "failure"

    @property
    def best_reward(self) -> int:
        """Largest reward of the episode."""
        return int(self.rewards.max(initial=0))

    @property
    def final_reward(self) -> int:
        """Reward at the end."""
        return int(self.rewards[-1]) if len(self.rewards) else 0

    @property
    def reached_s(self) -> float | None:
        """When the environment's largest reward was first reached, [s]; None if never."""
        reached = np.flatnonzero(self.rewards >= self.max_reward)
        return float(self.times_s[reached[0]]) if len(reached) else None

    @property
    def seam_positions(self) -> np.ndarray:
        """(C, J) jumps at the seams, as ``Smoothness`` defines them; NaN where nothing was joined or measured."""
        if self.smoothness is None:
            return np.full((len(self.splice_times_s), len(self.joint_names)), np.nan)
        return self.smoothness.seam_positions

    @property
    def largest_seam(self) -> float:
        """Largest jump of any joint at a seam, 0 without seams."""
        return float(np.fmax.reduce(self.seam_positions, axis=None, initial=0.0))

    @property
    def tracking_error(self) -> np.ndarray:
        """(T, J) measured minus commanded."""
        return self.measured - self.commanded


def from_result(
    result: EpisodeResult,
    joint_names: tuple[str, ...],
    start_ns: int,
    max_reward: int,
    video: str = "",
    bag: str = "",
) -> EpisodeRecord:
    """Makes a record of a simulated episode.

    Args:
        joint_names: columns of the result.
        start_ns: the body's clock at the reset, from which times count.
        max_reward: the environment's largest reward.
    """
    events = tuple(
        (seconds(change.stamp_ns - start_ns), f"{change.after.value}: {change.reason}")
        for change in result.changes
        if change.stamp_ns >= start_ns
    )
    return EpisodeRecord(
        seed=result.seed,
        world=result.world,
        instruction=result.instruction,
        sticky=result.sticky,
        strict=result.strict,
        max_reward=max_reward,
        joint_names=joint_names,
        times_s=result.times_s,
        rewards=result.rewards,
        commanded=result.commanded,
        measured=result.measured,
        context_ages_s=result.context_ages_s,
        splice_times_s=result.splice_times_s,
        events=events,
        refusals=result.refusals,
        starved=result.starved,
        position_hits=int(result.position_hits.sum()),
        velocity_hits=int(result.velocity_hits.sum()),
        encodes=result.encodes,
        chunks=result.chunks,
        incidents=result.incidents,
        smoothness=result.smoothness,
        context_wait=result.context_wait,
        video=video,
        bag=bag,
    )


def worst_first(episodes: tuple[EpisodeRecord, ...]) -> tuple[EpisodeRecord, ...]:
    """Returns episodes ordered by outcome, then reward at the end, best reward, time to success and seed."""

    def badness(episode: EpisodeRecord) -> tuple:
        rank = ("failure", "sticky", "strict").index(episode.outcome)
        reached_s = episode.reached_s
        late = -(reached_s if reached_s is not None else np.inf)
        return rank, episode.final_reward, episode.best_reward, late, episode.seed

    return tuple(sorted(episodes, key=badness))
