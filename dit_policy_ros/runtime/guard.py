"""What looks at a whole coming motion and may object to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dit_policy_ros.actions.motion import Motion


@dataclass(frozen=True)
class Finding:
    """What is wrong with a motion."""

    knot: int
    """The first knot of the motion that must not be reached, at least 0."""
    text: str
    """What would happen there."""
    speed: float = 1.0
    """Share of the motion's speed at which it would be allowed; 1 where slowing does not help."""


class Guard(Protocol):
    """One rule about whole motions. Implementations that need a model of the robot live in ``safety/``."""

    @property
    def name(self) -> str:
        """First clause of the reasons it gives."""

    @property
    def mode(self) -> str:
        """'slow', 'stop' (ahead of what was found) or 'refuse' (the whole chunk)."""

    def check(self, motion: Motion) -> Finding | None:
        """Returns None for a motion that is allowed. What it cannot judge it does not allow."""
