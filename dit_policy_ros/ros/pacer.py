"""Keeps a loop at its rate on the steady clock."""

from __future__ import annotations

import time

from dit_policy_ros.runtime.latency import LatencyWindow
from dit_policy_ros.types import nanoseconds

WINDOW = 1000


class Pacer:
    """Sleeps to the next period. A loop that is late runs on at once."""

    def __init__(self, catch_up_s: float) -> None:
        """Starts with the first wait.

        Args:
            catch_up_s: lateness that is still made up for; beyond it the schedule starts anew, so that a stall does
                not end in a burst.
        """
        self._catch_up_s = catch_up_s
        self._next_s: float | None = None
        self.overruns = 0
        """How often the schedule had to start anew."""
        self.periods = 0
        self.misses = 0
        """Periods whose work was not done when the next one began."""
        self.lateness = LatencyWindow(WINDOW)
        """How long after their planned instants the last periods began."""

    def wait(self, period_s: float) -> None:
        """Sleeps until ``period_s`` after the last planned instant; 0 never sleeps."""
        now_s = time.monotonic()
        if self._next_s is None or period_s <= 0.0:
            self._next_s = now_s
        self._next_s += period_s
        self.periods += 1
        self.misses += period_s > 0.0 and now_s > self._next_s
        if now_s > self._next_s + self._catch_up_s:
            self._next_s = now_s
            self.overruns += 1
        elif now_s < self._next_s:
            time.sleep(self._next_s - now_s)
        self.lateness.add(max(0, nanoseconds(time.monotonic() - self._next_s)))
