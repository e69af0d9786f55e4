"""What is wrong with a node at present, told once when it begins and once when it ends."""

from __future__ import annotations

import re
from collections import Counter
from typing import Protocol


class Logger(Protocol):
    """The two levels used of a ROS logger."""

    def error(self, message: str) -> object:
        """Logs an error."""

    def info(self, message: str) -> object:
        """Logs an event."""


class Problems:
    """Present reasons by source. Safe to use from several threads, one per source."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._present: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        """How often each source had something to tell."""

    def tell(self, source: str, reason: str) -> None:
        """Sets the present reason of a source, "" where all is well. Logs changes of more than a number in it."""
        before = self._present.get(source, "")
        if reason:
            self._present[source] = reason
            self.counts[source] += 1
            if _without_numbers(reason) != _without_numbers(before):
                self._logger.error(f"{source}: {reason}")
        elif before:
            del self._present[source]
            self._logger.info(f"{source}: recovered.")

    @property
    def present(self) -> dict[str, str]:
        """Source to reason, only of what is wrong now."""
        return dict(self._present)


def _without_numbers(text: str) -> str:
    return re.sub(r"-?\d+(\.\d+)?", "#", text)
