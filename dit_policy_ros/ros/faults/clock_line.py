"""Which time the controllers' clock had at an instant of this machine's."""

from __future__ import annotations

import bisect
from collections import deque

KEPT = 20_000
"""Readings; more than five minutes of a simulator's."""


class ClockLine:
    """Readings of a clock with the instants at which they were published. Not thread-safe."""

    def __init__(self) -> None:
        """Knows nothing yet."""
        self._said_ns: deque[int] = deque(maxlen=KEPT)
        self._clock_ns: deque[int] = deque(maxlen=KEPT)

    def add(self, said_ns: int, clock_ns: int) -> None:
        """Takes a reading; one that was published before the last is dropped."""
        if not self._said_ns or said_ns >= self._said_ns[-1]:
            self._said_ns.append(said_ns)
            self._clock_ns.append(clock_ns)

    def at(self, instant_ns: int) -> int:
        """Returns the newest reading that had been published by then; the first one before it, 0 without any."""
        if not self._said_ns:
            return 0
        return self._clock_ns[max(0, bisect.bisect_right(self._said_ns, instant_ns) - 1)]
