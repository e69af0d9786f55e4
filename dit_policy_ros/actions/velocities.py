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
    intervals = (np.diff(times_ns) / NS_PER_S)[:, None]
    slopes = np.diff(positions, axis=0) / intervals
    before, after = slopes[:-1], slopes[1:]
    h_before, h_after = intervals[:-1], intervals[1:]
    central = (h_after * before + h_before * after) / (h_before + h_after)
    largest = np.where(before * after > 0.0, 3.0 * np.minimum(np.abs(before), np.abs(after)), 0.0)
    inside = np.clip(central, -largest, largest)
    return np.concatenate((slopes[:1], inside, slopes[-1:]))
