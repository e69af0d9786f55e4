"""Exact quantiles of more numbers than the memory should hold: passes over a histogram that zooms in on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dit_policy_ros.data.scratch import ScratchTable, passes

_BINS = 4096
_FEW = 1 << 15
"""So many numbers are sorted at once."""
_SIGN = np.uint64(1 << 63)


def quantiles(values: np.ndarray, fractions: Sequence[float]) -> list[float]:
    """Returns the quantiles of numbers without NaN, as ``numpy.quantile`` defines them.

    Args:
        values: (N,) int64 or float64, at least one; may be the array of a ``ScratchTable``.
        fractions: 0 to 1.
    """
    last = len(values) - 1
    ranks = [int(np.floor(fraction * last)) for fraction in fractions]
    wanted = sorted({min(rank + step, last) for rank in ranks for step in (0, 1)})
    known = dict(zip(wanted, order_statistics(values, wanted), strict=True))
    found = []
    for fraction, rank in zip(fractions, ranks, strict=True):
        low, high, share = float(known[rank]), float(known[min(rank + 1, last)]), fraction * last - rank
        # As numpy does it, so that the last digits agree.
        found.append(high - (high - low) * (1.0 - share) if share >= 0.5 else low + (high - low) * share)
    return found


def order_statistics(values: np.ndarray, ranks: Sequence[int]) -> np.ndarray:
    """Returns what stands at some places of the sorted numbers; see ``quantiles``."""
    if len(values) <= _FEW:
        return np.sort(values)[list(ranks)]
    return np.array([_at_rank(values, rank) for rank in ranks], values.dtype)


def _at_rank(values: np.ndarray, rank: int) -> np.generic:
    """Narrows a range of keys down until it holds few numbers, or one value."""
    low, high = np.uint64(0), np.uint64(2**64 - 1)
    inside = len(values)
    while inside > _FEW and high > low:
        width = (high - low) // np.uint64(_BINS) + np.uint64(1)
        counts = np.zeros(_BINS, np.int64)
        for keys in _keys(values, low, high):
            counts += np.bincount(((keys - low) // width).astype(np.int64), minlength=_BINS)
        sums = np.cumsum(counts)
        k = int(np.searchsorted(sums, rank, side="right"))
        rank -= int(sums[k] - counts[k])
        low += np.uint64(k) * width
        high = min(high, low + (width - np.uint64(1)))
        inside = int(counts[k])
    if high == low:
        return _values(np.array([low]), values.dtype)[0]
    found = np.sort(np.concatenate(list(_keys(values, low, high))))
    return _values(found[rank : rank + 1], values.dtype)[0]


def _keys(values: np.ndarray, low: np.uint64, high: np.uint64) -> Iterator[np.ndarray]:
    """Yields the numbers as integers of the same order, (M,) uint64, as far as they are in [low, high]."""
    for part in passes(values):
        bits = np.ascontiguousarray(part).view(np.uint64)
        is_negative_float = (bits >= _SIGN) & (values.dtype.kind == "f")
        keys = np.where(is_negative_float, ~bits, bits ^ _SIGN)
        yield keys[(keys >= low) & (keys <= high)]


def _values(keys: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns the numbers behind keys."""
    if dtype.kind != "f":
        return (keys ^ _SIGN).view(dtype)
    return np.where(keys >= _SIGN, keys ^ _SIGN, ~keys).view(dtype)


def without_nan(values: np.ndarray) -> np.ndarray:
    """Returns what is known of an array of any shape, (M,) float64, outside the memory where it is much."""
    values = np.atleast_1d(values)
    table = ScratchTable()
    for part in passes(values):
        flat = np.asarray(part, np.float64).reshape(-1)
        table.extend(flat[~np.isnan(flat)])
    return table.array()
