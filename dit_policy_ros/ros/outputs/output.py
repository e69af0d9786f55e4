"""What all outputs have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dit_policy_ros.controllers import Controller
from dit_policy_ros.types import Trajectory


@dataclass(frozen=True)
class Moment:
    """What there is to say to one controller in one control period."""

    now_ns: int
    """The stamp that all messages of the period share."""
    period_ns: int
    trajectory: Trajectory | None
    """A new one, or None where the last one goes on."""
    reference: Callable[[int], np.ndarray | None]
    """Instant, [ns], to where the controller's joints are told to be then, (len(joints),); None: nowhere yet."""
    moves: bool
    """Whether a motion, or a stop of one, is under way."""


class Output(Protocol):
    """One controller's line. ``encode`` of all outputs is called before ``send`` of any, so no arm gets half."""

    controller: Controller
    message_type: Any
    """Message class, or action class where goals are sent."""
    streams: bool
    """It must be told something in every period of a motion, to the end of it."""

    def encode(self, moment: Moment) -> Any:
        """Returns what is to be sent, None for nothing."""

    def send(self, encoded: Any) -> None:
        """Sends it."""

    def flush(self) -> None:
        """Waits until the controller has what was sent, a second at most."""

    def close(self) -> None:
        """Lets go of what is neither publisher nor subscription of the node."""
