"""How one input arrives: rate, age, and a bound on how much of it is taken."""

from __future__ import annotations

from collections import deque

from dit_policy_ros.types import NS_PER_S, seconds

WINDOW = 64
"""Arrivals that the rate is measured over."""


class StreamMonitor:
    """Counts arrivals on a steady clock. Notes come from one thread, reads from any."""

    def __init__(self, most_hz: float) -> None:
        """Makes a monitor without arrivals.

        Args:
            most_hz: messages beyond this rate are not taken; a tenth of a second's worth may come at once.
        """
        self.most_hz = most_hz
        self.count = 0
        self.dropped = 0
        """Not taken because they came too fast."""
        self._arrivals_ns: deque[int] = deque(maxlen=WINDOW)
        self._burst = max(2.0, most_hz / 10.0)
        self._tokens = self._burst
        self._filled_ns: int | None = None

    def note(self, steady_ns: int) -> bool:
        """Notes an arrival; returns whether the message is to be taken."""
        self.count += 1
        self._arrivals_ns.append(steady_ns)
        since_ns = 0 if self._filled_ns is None else steady_ns - self._filled_ns
        self._filled_ns = steady_ns
        self._tokens = min(self._burst, self._tokens + seconds(since_ns) * self.most_hz)
        if self._tokens < 1.0:
            self.dropped += 1
            return False
        self._tokens -= 1.0
        return True

    def age_s(self, steady_ns: int) -> float | None:
        """Returns the time since the newest arrival, None before the first."""
        arrivals_ns = self._arrivals_ns
        return seconds(steady_ns - arrivals_ns[-1]) if arrivals_ns else None

    def rate_hz(self, steady_ns: int) -> float:
        """Returns the mean rate of the last arrivals up to now; it falls while nothing comes."""
        arrivals_ns = tuple(self._arrivals_ns)
        if len(arrivals_ns) < 2:
            return 0.0
        # A stream that stopped counts as having been silent since, not as fast as it was.
        span_ns = max(arrivals_ns[-1] - arrivals_ns[0], steady_ns - arrivals_ns[0] - NS_PER_S)
        return (len(arrivals_ns) - 1) / seconds(span_ns) if span_ns > 0 else 0.0
