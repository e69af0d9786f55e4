"""What is wrong with a node at present, told once when it begins and once when it ends."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

GRACE_S = 10.0


class Logger(Protocol):
    """The two levels used of a ROS logger."""

    def error(self, message: str) -> object:
        """Logs an error."""

    def info(self, message: str) -> object:
        """Logs an event."""


class Problems:
    """Present reasons by source. Safe to use from several threads, one per source.

    A source that was never well since ``begin`` is waited for: within the grace time that is an event, then an error.
    """

    def __init__(self, logger: Logger, grace_s: float = GRACE_S, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts without problems, and with the grace time running.

        Args:
            clock: steady, [s].
        """
        self._logger = logger
        self._grace_s = grace_s
        self._clock = clock
        self._present: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        """How often each source had something to tell."""
        self.begin()

    def begin(self) -> None:
        """Starts the grace time anew, as at an activation, and forgets what was wrong before."""
        self._until_s = self._clock() + self._grace_s
        self._well: set[str] = set()
        self._present.clear()
        self._told.clear()

    def tell(self, source: str, reason: str) -> None:
        """Sets the present reason of a source, "" where all is well. Logs changes of more than a number in it."""
        if not reason:
            self._well.add(source)
            if self._present.pop(source, ""):
                self._told.pop(source, None)
                self._logger.info(f"{source}: recovered.")
            return
        self._present[source] = reason
        self.counts[source] += 1
        waits = self._waits_for(source)
        text = f"{'waiting for ' if waits else ''}{_without_numbers(reason)}"
        if text != self._told.get(source, ""):
            self._told[source] = text
            if waits:
                self._logger.info(f"waiting, {source}: {reason}")
            else:
                self._logger.error(f"{source}: {reason}")

    @property
    def present(self) -> dict[str, str]:
        """Source to reason, only of what is wrong now."""
        return dict(self._present)

    @property
    def are_errors(self) -> bool:
        """Whether anything is wrong that is more than waiting for a start."""
        return any(not self._waits_for(source) for source in tuple(self._present))

    def _waits_for(self, source: str) -> bool:
        return source not in self._well and self._clock() < self._until_s


def _without_numbers(text: str) -> str:
    return re.sub(r"-?\d+(\.\d+)?", "#", text)
