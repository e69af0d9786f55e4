"""How a simulated episode stands, as ``sim_node`` tells it on ``~/episode``."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from dit_policy_ros.errors import WorldError


@dataclass(frozen=True)
class EpisodeState:
    """One episode; see ``sim.body.Score`` for the success figures."""

    world: str
    seed: int
    instruction: str
    start_ns: int
    """On the simulated clock."""
    reward: int = 0
    sticky: bool = False
    strict: bool = False
    is_done: bool = False
    """The time is up, and the figures are final."""

    def scored(self, reward: int, sticky: bool, strict: bool, is_done: bool) -> EpisodeState:
        """Returns the episode with new figures."""
        return dataclasses.replace(self, reward=reward, sticky=sticky, strict=strict, is_done=is_done)

    def to_json(self) -> str:
        """Returns one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> EpisodeState:
        """Reads ``to_json`` back.

        Raises:
            WorldError: the text is something else.
        """
        try:
            return cls(**json.loads(text))
        except (json.JSONDecodeError, TypeError) as problem:
            raise WorldError(f"Not an episode as sim_node tells it: '{text}'.") from problem
