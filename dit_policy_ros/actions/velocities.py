"""Velocities at the knots of monotone cubics."""

from __future__ import annotations

import numpy as np

from dit_policy_ros.types import NS_PER_S


def knot_velocities(times_ns: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Returns a velocity for each knot such that the cubics between them never leave the knots' range.

    Inside: derivative of the parabola through three knots, limited as in Fritsch and Carlson, "Monotone Piecewise
    Cubic Interpolation" (1980), and zero where the motion turns. At the ends: the neighbouring slope.

    Args:
        times_ns: (K,) strictly increasing, K >= 2.
        positions: (K, J).

    Returns:
        (K, J), unit of the positions per second; no larger than the larger neighbouring slope.
    """
    intervals = ((times_ns[1:] - times_ns[:-1]) / NS_PER_S)[:, None]
    slopes = (positions[1:] - positions[:-1]) / intervals
    before, after = slopes[:-1], slopes[1:]
    share = intervals[1:] / (intervals[:-1] + intervals[1:])
    central = share * before + (1.0 - share) * after
    sizes = np.abs(slopes)
    largest = np.where(before * after > 0.0, 3.0 * np.minimum(sizes[:-1], sizes[1:]), 0.0)
    inside = np.minimum(np.maximum(central, -largest), largest)
    return np.concatenate((slopes[:1], inside, slopes[-1:]))
