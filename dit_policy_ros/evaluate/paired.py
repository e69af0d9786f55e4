"""Statistics of paired errors: two policies on the same recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dit_policy_ros.errors import ConfigError

_RESAMPLES = 10_000
_DRAWN = 200_000
"""Rows at a time."""


@dataclass(frozen=True)
class PairedDifference:
    """First minus second; below zero the first has the smaller error."""

    mean: float
    lower: float
    upper: float
    """95 % interval of the mean, by bootstrap."""
    p_value: float
    """Of Wilcoxon's signed-rank test (1945), two-sided; NaN where the units are too few or not independent."""
    units: int
    """Pairs, or blocks of them."""


def paired_difference(first: np.ndarray, second: np.ndarray, seed: int = 0) -> PairedDifference:
    """Compares errors of independent units, such as recordings.

    Args:
        first: (N,) errors of one policy; second: (N,) of the other on the same units.
        seed: of the resampling.

    Raises:
        ConfigError: the numbers differ, or there are none.
    """
    difference = _difference(first, second)
    p_value = float(stats.wilcoxon(difference).pvalue) if len(difference) > 1 and difference.any() else float("nan")
    return _bootstrap(difference[:, None], seed, p_value)


def block_difference(first: np.ndarray, second: np.ndarray, times_s: np.ndarray, block_s: float = 2.0, seed: int = 0):
    """Compares errors that follow each other in one recording.

    Chunks overlap, so neighbours are not independent: whole blocks of time are resampled (Kuensch, 1989), and no test
    that needs independence is made.

    Args:
        first: (N,) errors of one policy; second: (N,) of the other at the same instants.
        times_s: (N,) of the observations.
        block_s: length of a block, longer than a chunk's horizon.

    Returns:
        A ``PairedDifference`` without a p-value.

    Raises:
        ConfigError: see ``paired_difference``.
    """
    difference = _difference(first, second)
    blocks = np.floor((times_s - times_s[0]) / block_s).astype(np.int64)
    _, numbers = np.unique(blocks, return_inverse=True)
    sums, counts = np.bincount(numbers, difference), np.bincount(numbers)
    return _bootstrap(np.stack([sums, counts], axis=1), seed, float("nan"))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for their number by Holm's method (1979); NaN stays and does not count."""
    known = [p for p in p_values if not np.isnan(p)]
    order = sorted(range(len(p_values)), key=lambda k: (np.isnan(p_values[k]), p_values[k]))
    corrected, largest = list(p_values), 0.0
    for rank, k in enumerate(order[: len(known)]):
        largest = max(largest, min(1.0, (len(known) - rank) * p_values[k]))
        corrected[k] = largest
    return corrected


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    if len(first) != len(second) or not len(first):
        raise ConfigError(f"{len(first)} errors cannot be paired with {len(second)}; replay the same recordings.")
    return np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)


def _bootstrap(rows: np.ndarray, seed: int, p_value: float) -> PairedDifference:
    """Resamples rows: values, or (sum, count) of blocks."""
    totals = rows.sum(axis=0)
    mean = float(totals[0] / (totals[1] if rows.shape[1] == 2 else len(rows)))
    rng = np.random.default_rng(seed)
    means, left = [], _RESAMPLES
    while left:  # In parts, so that memory stays small.
        part = min(left, max(1, min(1000, _DRAWN // len(rows))))
        left -= part
        drawn = rows[rng.integers(0, len(rows), size=(part, len(rows)))].sum(axis=1)
        means.append(drawn[:, 0] / (drawn[:, 1] if rows.shape[1] == 2 else len(rows)))
    lower, upper = np.percentile(np.concatenate(means), [2.5, 97.5])
    return PairedDifference(mean, float(lower), float(upper), p_value, len(rows))
