"""What a continuity method asks of the loop around a policy."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dit_policy_ros.types import ActionChunk


@dataclass(frozen=True)
class Timing:
    """When chunks are planned and executed; the default is for chunks that are joined by time."""

    commits: bool = True
    """The policy is told what is executed until its chunk can take effect."""
    starts_at_arrival: bool = False
    """A chunk is executed from its first action on whenever it arrives, as if no time had passed."""
    waits_for_rest: bool = False
    """Observation, context and chunk follow one another while the robot rests at the end of the last chunk."""
    executes: float = 1.0
    """Share of every chunk that is executed."""


def timing_of(policy: object) -> Timing:
    """Returns the timing that a policy asks for by its attribute ``timing``."""
    return getattr(policy, "timing", Timing())


def placed(chunk: ActionChunk, timing: Timing, arrival_ns: int) -> ActionChunk:
    """Returns a chunk as it is executed when it arrives at an instant."""
    kept = max(1, round(timing.executes * len(chunk.actions)))
    chunk = chunk if kept == len(chunk.actions) else replace(chunk, actions=chunk.actions[:kept])
    return replace(chunk, start_ns=arrival_ns) if timing.starts_at_arrival else chunk
