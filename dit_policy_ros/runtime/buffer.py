"""The recent past of the joints, to be asked for any instant in it."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

import numpy as np


class JointBuffer:
    """Stamped joint vectors of one width, oldest first, interpolated linearly."""

    def __init__(self, capacity: int = 256, tolerance_ns: int = 25_000_000, jump_ns: int = 500_000_000):
        """Makes an empty buffer.

        Args:
            capacity: number of samples kept.
            tolerance_ns: how far outside the known span an instant may lie; the nearest sample answers for it.
            jump_ns: a stamp this far behind the newest means that time jumped back, and the buffer starts anew.
        """
        self.tolerance_ns = tolerance_ns
        self.jump_ns = jump_ns
        self.out_of_order = 0
        """Samples dropped because they were no newer than the newest."""
        self.jumps = 0
        """How often time jumped back."""
        self._stamps_ns: deque[int] = deque(maxlen=capacity)
        self._values: deque[np.ndarray] = deque(maxlen=capacity)

    def __len__(self) -> int:
        """Number of samples kept."""
        return len(self._stamps_ns)

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest sample; None while empty."""
        return self._stamps_ns[-1] if self._stamps_ns else None

    def clear(self) -> None:
        """Forgets all samples."""
        self._stamps_ns.clear()
        self._values.clear()

    def add(self, stamp_ns: int, values: np.ndarray) -> None:
        """Adds a sample, (N,)."""
        newest = self.newest_ns
        if newest is not None and stamp_ns <= newest:
            if stamp_ns > newest - self.jump_ns:
                self.out_of_order += 1
                return
            self.jumps += 1
            self.clear()
        self._stamps_ns.append(stamp_ns)
        self._values.append(values)

    def at(self, stamp_ns: int) -> np.ndarray | None:
        """Returns the values at an instant, (N,), or None where it lies outside what is known."""
        stamps = self._stamps_ns
        if not stamps or not stamps[0] - self.tolerance_ns <= stamp_ns <= stamps[-1] + self.tolerance_ns:
            return None
        after = bisect_right(stamps, stamp_ns)
        if after == 0 or after == len(stamps):
            return self._values[max(0, after - 1)]
        start_ns, end_ns = stamps[after - 1], stamps[after]
        w = (stamp_ns - start_ns) / (end_ns - start_ns)
        return (1.0 - w) * self._values[after - 1] + w * self._values[after]
