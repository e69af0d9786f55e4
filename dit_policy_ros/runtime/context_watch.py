"""How long the arms waited for a younger context, and which limit of its age they would not have waited with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dit_policy_ros.runtime.latency import LatencyWindow
from dit_policy_ros.types import ActionChunk, seconds

STALE_CONTEXT = "stale context"
"""What the executor's reasons begin with where a context is older than its limit."""
STOPPED = ("stopping", "holding")
"""States of the executor in which it waits."""
ENOUGH = 1.1
"""A limit is advised so many times longer than what was needed."""


class ContextWatch:
    """Told of chunks and of the executor's states by its owner. Not thread-safe."""

    def __init__(self, limit_s: float) -> None:
        """Starts before the first motion.

        Args:
            limit_s: the executor's ``max_context_age_s``.
        """
        self.limit_s = limit_s
        self.needed = LatencyWindow()
        """Age that a context had reached when the first chunk of its successor came."""
        self._context_ns: int | None = None
        self._moved_ns: int | None = None
        """First motion."""
        self._stopped_ns: int | None = None
        self._held_ns = 0

    def offered(self, chunk: ActionChunk, now_ns: int) -> None:
        """Takes a chunk that reaches the executor, whether it is accepted or not; one from the future says nothing."""
        if chunk.context_ns > now_ns:
            return
        before_ns = self._context_ns
        if before_ns is None or chunk.context_ns < before_ns:  # Time began anew.
            self._context_ns = chunk.context_ns
        elif chunk.context_ns > before_ns:
            self._context_ns = chunk.context_ns
            self.needed.add(now_ns - before_ns)

    def changed(self, state: str, reason: str, now_ns: int) -> None:
        """Takes a change of the executor's state."""
        self._held_ns = self.held_ns(now_ns)
        if self._moved_ns is None and state == "moving":
            self._moved_ns = now_ns
        waits = state in STOPPED and reason.partition(":")[0] == STALE_CONTEXT
        self._stopped_ns = now_ns if waits and self._moved_ns is not None else None

    def held_ns(self, now_ns: int) -> int:
        """Returns how long the arms waited for a younger context so far."""
        return self._held_ns + (0 if self._stopped_ns is None else max(0, now_ns - self._stopped_ns))

    def share(self, now_ns: int) -> float:
        """Returns the share of the time since the first motion in which they did."""
        if self._moved_ns is None or now_ns <= self._moved_ns:
            return 0.0
        return min(1.0, self.held_ns(now_ns) / (now_ns - self._moved_ns))

    def wait(self, now_ns: int) -> ContextWait:
        """Returns what was measured so far."""
        needed_ns = self.needed.p95_ns
        return ContextWait(self.share(now_ns), None if needed_ns is None else seconds(needed_ns), self.limit_s)


@dataclass(frozen=True)
class ContextWait:
    """What a limit on the age of contexts costs."""

    share: float
    """Of the time since the first motion, in which the arms waited for a younger context."""
    needed_s: float | None
    """Age that contexts reach before the first chunk of their successors comes, 95th percentile, [s]."""
    limit_s: float
    """The executor's ``max_context_age_s``."""

    def advice(self) -> str:
        """Returns '' where contexts are young enough, else what happens and what to do."""
        is_over = self.needed_s is not None and self.needed_s > self.limit_s
        if not is_over and self.share == 0.0:
            return ""
        reach = "" if self.needed_s is None else f" Contexts get {self.needed_s:.2f} s old before the next acts (95 %)."
        to = f" to {math.ceil(10.0 * ENOUGH * self.needed_s) / 10.0:g}" if is_over else ""
        return (
            f"Held for {100 * self.share:.1f} % of the time because the context was older than {self.limit_s:g} s."
            f"{reach} Raise max_context_age_s{to}, or make the slow system faster."
        )


def wait_of(waits: Sequence[ContextWait]) -> ContextWait | None:
    """Returns one for several equally long runs under one limit: the mean share and the largest need."""
    if not waits:
        return None
    needed = [wait.needed_s for wait in waits if wait.needed_s is not None]
    share = sum(wait.share for wait in waits) / len(waits)
    return ContextWait(share, max(needed, default=None), waits[0].limit_s)
