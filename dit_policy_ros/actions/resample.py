"""Values of a sampled motion at other instants. Nothing here extrapolates."""

from __future__ import annotations

import numpy as np

from dit_policy_ros.actions.velocities import knot_velocities
from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.types import NS_PER_S, ActionChunk

METHODS = ("linear", "cubic")


def resample(times_ns: np.ndarray, values: np.ndarray, at_ns: np.ndarray, method: str = "cubic") -> np.ndarray:
    """Returns values at other instants; at a shared instant it is exactly the given value.

    Args:
        times_ns: (K,) strictly increasing.
        values: (K, J).
        at_ns: (N,) instants, none before the first or after the last of ``times_ns``.
        method: 'linear', or 'cubic' (smooth, and never outside the range of the two neighbours).

    Returns:
        (N, J).

    Raises:
        PolicyError: an instant lies outside, or the method is unknown.
    """
    if method not in METHODS:
        raise PolicyError(one_of("Resampling method", method, METHODS))
    if len(at_ns) == 0:
        return np.zeros((0, values.shape[1]))
    if at_ns.min() < times_ns[0] or at_ns.max() > times_ns[-1]:
        raise PolicyError(
            f"Cannot resample at {at_ns.min()}..{at_ns.max()} ns: values are known for "
            f"{times_ns[0]}..{times_ns[-1]} ns only; ask for instants inside."
        )
    if len(times_ns) == 1:
        return np.repeat(values, len(at_ns), axis=0)
    index = np.searchsorted(times_ns[1:-1], at_ns, side="right")
    begin_ns = times_ns[index]
    interval_ns = times_ns[index + 1] - begin_ns
    w = ((at_ns - begin_ns) / interval_ns)[:, None]
    begin, end = values[index], values[index + 1]
    if method == "linear":
        return (1.0 - w) * begin + w * end
    velocities = knot_velocities(times_ns, values)
    return hermite(w, (interval_ns / NS_PER_S)[:, None], begin, velocities[index], end, velocities[index + 1])


def resample_chunk(chunk: ActionChunk, at_ns: np.ndarray, method: str = "cubic") -> np.ndarray:
    """Returns the actions of a chunk at other instants, (N, len(chunk.names)). Raises as ``resample`` does."""
    return resample(chunk.times_ns, chunk.actions, at_ns, method)


def hermite(w: np.ndarray, interval_s: np.ndarray, p0, v0, p1, v1) -> np.ndarray:
    """Returns the cubic with the given end positions and velocities at the fraction ``w`` of the interval."""
    w2, w3 = w * w, w * w * w
    return (
        (1.0 - 3.0 * w2 + 2.0 * w3) * p0
        + (3.0 * w2 - 2.0 * w3) * p1
        + (interval_s * (w - 2.0 * w2 + w3)) * v0
        + (interval_s * (w3 - w2)) * v1
    )


def hermite_velocity(w: np.ndarray, interval_s: np.ndarray, p0, v0, p1, v1) -> np.ndarray:
    """Returns the time derivative of ``hermite``."""
    w2 = w * w
    return (6.0 * (w - w2) / interval_s) * (p1 - p0) + (1.0 - 4.0 * w + 3.0 * w2) * v0 + (3.0 * w2 - 2.0 * w) * v1
