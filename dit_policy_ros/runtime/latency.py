"""How long something takes, from what it took lately."""

from __future__ import annotations

from collections import deque

import numpy as np


class LatencyWindow:
    """Durations of the last ``size`` runs; the first run of all is a warm-up and is ignored."""

    def __init__(self, size: int = 50, warm_up_ns: int | None = None):
        """Starts empty.

        Args:
            warm_up_ns: what the first run took, where it is over already.
        """
        self._durations_ns: deque[int] = deque(maxlen=size)
        self.warm_up_ns = warm_up_ns
        """What the first run took."""

    def __len__(self) -> int:
        """Number of durations in the window."""
        return len(self._durations_ns)

    def add(self, duration_ns: int) -> None:
        """Notes one run."""
        if self.warm_up_ns is None:
            self.warm_up_ns = duration_ns
        else:
            self._durations_ns.append(duration_ns)

    def percentile_ns(self, percent: float) -> int | None:
        """Returns the smallest noted duration that ``percent`` of the window does not exceed; None while empty."""
        if not self._durations_ns:
            return None
        return int(np.percentile(self._durations_ns, percent, method="inverted_cdf"))

    @property
    def p50_ns(self) -> int | None:
        """Median; None while empty."""
        return self.percentile_ns(50.0)

    @property
    def p95_ns(self) -> int | None:
        """95th percentile; None while empty."""
        return self.percentile_ns(95.0)

    @property
    def p99_ns(self) -> int | None:
        """99th percentile; None while empty."""
        return self.percentile_ns(99.0)
