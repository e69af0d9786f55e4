"""How a continuity method takes part when a policy draws a chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dit_policy_ros.actions.resample import resample_chunk
from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.guidance.prefix import Corruption
from dit_policy_ros.policy.guide import Guide
from dit_policy_ros.types import ActionChunk


@dataclass(frozen=True)
class Drawing:
    """A chunk that is about to be drawn."""

    noise: Tensor
    """(B, H, A) start of the sampler."""
    corruption: Corruption
    predicts: str
    """What the network gives: 'velocity', 'epsilon', 'sample' or 'v'."""
    start_ns: int
    """Instant of row ``lead``."""
    step_ns: int
    lead: int
    """Rows before the observation."""
    channels: Tensor
    """(A,) bool, those that the robot has."""
    bound: float | None
    """Largest absolute value in the network's units; None where there is none."""
    to_network: Callable[[ActionChunk], Tensor]
    """Actions on the policy's own grid from ``start_ns`` on to (K, A) in the network's units."""

    def of(self, chunk: ActionChunk) -> tuple[Tensor, int]:
        """Returns another chunk at the instants of this one, (B, H, A), and how many rows from ``lead`` on it covers.

        After its end its last action is held; rows before ``lead`` are zero.
        """
        count = self.noise.shape[1] - self.lead
        instants_ns = self.start_ns + self.step_ns * np.arange(count, dtype=np.int64)
        values = self.noise.new_zeros(self.noise.shape)
        if chunk.end_ns < self.start_ns:
            return values, 0
        actions = resample_chunk(chunk, np.clip(instants_ns, chunk.start_ns, chunk.end_ns), "linear")
        moved = ActionChunk(chunk.names, self.start_ns, self.step_ns, actions)
        values[:, self.lead :] = self.to_network(moved).to(values)
        return values, int((instants_ns <= chunk.end_ns).sum())


GuideMaker = Callable[[Drawing], Guide | None]


@dataclass(frozen=True)
class Steering:
    """What to change about one draw."""

    draw: int = 0
    """Which of several starts for the same observation; 0 is the one without steering."""
    guide: GuideMaker | None = None
    """Makes a wrapper around the network."""

    def seed(self, stamp_ns: int) -> int:
        """Returns the seed of the starting noise; another one for every draw."""
        return (stamp_ns + self.draw * 0x9E3779B97F4A7C15) % 2**63

    def guided(self, drawing: Drawing) -> Guide | None:
        """Returns the wrapper, or None where there is none."""
        return None if self.guide is None else self.guide(drawing)


def columns_of(chunk: ActionChunk, names: tuple[str, ...], what: str) -> list[int]:
    """Returns where each name stands in a chunk.

    Raises:
        PolicyError: one is missing.
    """
    places = {name: i for i, name in enumerate(chunk.names)}
    missing = [name for name in names if name not in places]
    if missing:
        raise PolicyError(f"The {what} lacks {', '.join(missing)}.")
    return [places[name] for name in names]
