"""The decelerating hold: from any motion to rest."""

from __future__ import annotations

import numpy as np

from dit_policy_ros.actions.grid import ceil_to_grid
from dit_policy_ros.types import NS_PER_S


def stopping_waypoints(
    now_ns: int,
    position: np.ndarray,
    velocity: np.ndarray,
    acceleration: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    first_ns: int,
    step_ns: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns waypoints on the grid of multiples of ``step_ns`` that bring every joint to rest.

    Each joint decelerates evenly and comes to rest on an instant of the grid. It brakes harder than
    ``acceleration`` only where it would otherwise leave its position limits.

    Args:
        position: (J,) at ``now_ns``.
        velocity: (J,) at ``now_ns``.
        acceleration: (J,) largest deceleration.
        lower: (J,) position limits; a joint that starts outside goes no farther out.
        upper: (J,).
        first_ns: earliest instant of the first waypoint, after ``now_ns``.

    Returns:
        times (K,) int64 and positions (K, J), K >= 1; the last waypoint is at rest.
    """
    first_ns = ceil_to_grid(first_ns, step_ns)
    lead_s, step_s = (first_ns - now_ns) / NS_PER_S, step_ns / NS_PER_S
    speed = np.abs(velocity)
    lower, upper = np.minimum(lower, position), np.maximum(upper, position)
    room = np.where(velocity > 0.0, upper - position, position - lower)
    steps = np.maximum(0.0, np.ceil((speed / acceleration - lead_s) / step_s - 1e-9))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        most = np.floor((2.0 * room / speed - lead_s) / step_s + 1e-9)
    steps = np.where(speed > 0.0, np.maximum(0.0, np.minimum(steps, most)), 0.0)
    duration_s = lead_s + steps * step_s
    times_ns = first_ns + step_ns * np.arange(int(steps.max()) + 1, dtype=np.int64)
    elapsed_s = np.minimum(((times_ns - now_ns) / NS_PER_S)[:, None], duration_s)
    positions = position + velocity * elapsed_s * (1.0 - 0.5 * elapsed_s / duration_s)
    return times_ns, np.clip(positions, lower, upper)
