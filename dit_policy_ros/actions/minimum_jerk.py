"""The curve on which a motion from rest to rest has the least jerk."""

from __future__ import annotations

import numpy as np


def minimum_jerk(fraction: np.ndarray) -> np.ndarray:
    """Returns the share of the way, 0 to 1, at each fraction of the time, 0 to 1 (Flash and Hogan, 1985)."""
    return fraction**3 * (10.0 - 15.0 * fraction + 6.0 * fraction**2)
