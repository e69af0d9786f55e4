"""The absolute waypoint grid: instants that are whole multiples of a step, shared by everything that uses it."""

from __future__ import annotations

import numpy as np


def floor_to_grid(time_ns: int, step_ns: int) -> int:
    """Returns the last instant of the grid at or before ``time_ns``."""
    return time_ns // step_ns * step_ns


def ceil_to_grid(time_ns: int, step_ns: int) -> int:
    """Returns the first instant of the grid at or after ``time_ns``."""
    return -(-time_ns // step_ns) * step_ns


def grid_between(first_ns: int, last_ns: int, step_ns: int) -> np.ndarray:
    """Returns the instants of the grid in [first_ns, last_ns], (N,) int64, perhaps none."""
    return np.arange(ceil_to_grid(first_ns, step_ns), last_ns + 1, step_ns, dtype=np.int64)
