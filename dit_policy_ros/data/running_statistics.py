"""Statistics of a stream of vectors in constant memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dit_policy_ros.errors import BagError

_BINS = 4096
_SMALLEST = 1e-9  # Range that a channel without movement starts with, relative to its value.


@dataclass(frozen=True)
class Statistics:
    """Summary of each of C channels; every field is (C,) float64 in the channel's unit."""

    count: int
    mean: np.ndarray
    std: np.ndarray
    """Of the population, not corrected for the mean."""
    min: np.ndarray
    max: np.ndarray
    q01: np.ndarray
    """1st percentile, within 1/2048 of the channel's range."""
    q99: np.ndarray

    def to_dict(self) -> dict[str, int | list[float]]:
        """Returns plain numbers for JSON or YAML."""
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "std", "min", "max", "q01", "q99")}
        return {"count": self.count, **arrays}


class RunningStatistics:
    """Takes batches of vectors; the result does not depend on how the stream is cut, up to rounding.

    Mean and variance are merged after Chan, Golub and LeVeque (1979). Quantiles come from one histogram a channel,
    whose range doubles, by joining neighbouring bins, whenever a value falls outside.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self._mean = np.zeros(channels)
        self._squares = np.zeros(channels)
        self._min = np.full(channels, np.inf)
        self._max = np.full(channels, -np.inf)
        self._low = np.zeros(channels)
        self._width = np.zeros(channels)
        self._bins = np.zeros((channels, _BINS), dtype=np.int64)

    def add(self, values: np.ndarray) -> None:
        """Adds (N, C) finite values."""
        if not len(values):
            return
        values = np.asarray(values, dtype=np.float64)
        total = self.count + len(values)
        delta = values.mean(axis=0) - self._mean
        self._squares += ((values - values.mean(axis=0)) ** 2).sum(axis=0)
        self._squares += delta**2 * self.count * len(values) / total
        self._mean += delta * len(values) / total
        self._min = np.minimum(self._min, values.min(axis=0))
        self._max = np.maximum(self._max, values.max(axis=0))
        for channel in range(values.shape[1]):
            self._count_bins(channel, values[:, channel])
        self.count = total

    def result(self) -> Statistics:
        """Returns the summary of all values so far.

        Raises:
            BagError: there are none.
        """
        if not self.count:
            raise BagError("There are no values to summarise; the recordings are empty.")
        std = np.sqrt(self._squares / self.count)
        quantiles = [self._quantile(fraction) for fraction in (0.01, 0.99)]
        return Statistics(self.count, self._mean.copy(), std, self._min.copy(), self._max.copy(), *quantiles)

    def _count_bins(self, channel: int, values: np.ndarray) -> None:
        low, high = values.min(), values.max()
        if self.count == 0:
            self._low[channel] = low
            self._width[channel] = max(high - low, _SMALLEST * (1.0 + abs(low)))
        while low < self._low[channel]:
            self._low[channel] -= self._width[channel]
            self._join_bins(channel, slice(_BINS // 2, _BINS))
        while high > self._low[channel] + self._width[channel]:
            self._join_bins(channel, slice(0, _BINS // 2))
        index = ((values - self._low[channel]) * (_BINS / self._width[channel])).astype(np.int64)
        self._bins[channel] += np.bincount(np.clip(index, 0, _BINS - 1), minlength=_BINS)

    def _join_bins(self, channel: int, place: slice) -> None:
        """Doubles a channel's range; what was counted fills one half of it."""
        joined = self._bins[channel].reshape(-1, 2).sum(axis=1)
        self._bins[channel] = 0
        self._bins[channel, place] = joined
        self._width[channel] *= 2.0

    def _quantile(self, fraction: float) -> np.ndarray:
        reached = np.cumsum(self._bins, axis=1) >= fraction * self.count
        centre = self._low + (np.argmax(reached, axis=1) + 0.5) * self._width / _BINS
        return np.clip(centre, self._min, self._max)
