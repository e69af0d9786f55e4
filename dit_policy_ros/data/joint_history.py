"""Joint values over time, with the channels in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.errors import BagError
from dit_policy_ros.types import seconds


@dataclass(frozen=True)
class JointHistory:
    """Measured joints of one episode."""

    names: tuple[str, ...]
    times_ns: np.ndarray
    """(N,) int64, strictly increasing."""
    positions: np.ndarray
    """(N, len(names)) float64, [rad], [m], or 0..1 for a gripper."""
    velocities: np.ndarray | None
    """(N, len(names)) float64, unit of the position per second; None where a message gave none."""

    def positions_at(self, times_ns: np.ndarray) -> np.ndarray:
        """Returns (len(times_ns), len(names)) positions, linear between samples and constant beyond the ends."""
        return interpolate(times_ns, self.times_ns, self.positions)


def interpolate(times_ns: np.ndarray, known_ns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns (len(times_ns), C) of (N, C) ``values`` known at (N,) increasing instants; constant beyond the ends."""
    after = np.clip(np.searchsorted(known_ns, times_ns), 1, max(len(known_ns) - 1, 1))
    before, after = after - 1, np.minimum(after, len(known_ns) - 1)
    gap_ns = np.maximum(known_ns[after] - known_ns[before], 1)
    weight = np.clip((times_ns - known_ns[before]) / gap_ns, 0.0, 1.0)[:, None]
    return values[before] * (1.0 - weight) + values[after] * weight


class HistoryBuilder:
    """Collects messages that name their joints in any order, into arrays in one order."""

    def __init__(self, names: tuple[str, ...], where: str) -> None:
        self._names = names
        self._where = where
        self._orders: dict[tuple[str, ...], list[int]] = {}
        self._times_ns: list[int] = []
        self._positions: list[np.ndarray] = []
        self._velocities: list[np.ndarray] = []

    def add(self, time_ns: int, names: Sequence[str], positions: np.ndarray, velocities: np.ndarray) -> None:
        """Adds one message; joints that the robot lacks are ignored, ``velocities`` may be empty.

        Raises:
            BagError: a joint is missing or named twice, sizes disagree, or a value is not finite.
        """
        order = self._order(tuple(names))
        if len(positions) != len(names):
            raise BagError(f"{self._where}: a message has {len(names)} names but {len(positions)} positions.")
        row = positions[order]
        if not np.isfinite(row).all():
            bad = [name for name, value in zip(self._names, row, strict=True) if not np.isfinite(value)]
            raise BagError(
                f"{self._where}: {', '.join(bad)} is not finite at {seconds(time_ns):.3f} s; "
                "the sensor or driver was at fault, leave this episode out."
            )
        self._times_ns.append(time_ns)
        self._positions.append(row)
        if len(velocities) == len(names) and np.isfinite(velocities).all():
            self._velocities.append(velocities[order])

    def build(self) -> JointHistory:
        """Returns what was added, ordered by time; of equal stamps the last one counts.

        Raises:
            BagError: nothing was added.
        """
        if not self._times_ns:
            raise BagError(f"{self._where}: there is no message.")
        times_ns = np.array(self._times_ns, dtype=np.int64)
        # Reversed, so that "first of equals" below means the last one received.
        unique_ns, index = np.unique(times_ns[::-1], return_index=True)
        index = len(times_ns) - 1 - index
        complete = len(self._velocities) == len(self._positions)
        velocities = np.array(self._velocities)[index] if complete else None
        return JointHistory(self._names, unique_ns, np.array(self._positions)[index], velocities)

    def _order(self, names: tuple[str, ...]) -> list[int]:
        if names not in self._orders:
            missing = [name for name in self._names if name not in names]
            if missing:
                raise BagError(
                    f"{self._where}: joint {', '.join(missing)} is missing; the message names {', '.join(names)}. "
                    "Check the names in the robot YAML against the bag."
                )
            if len(set(names)) != len(names):
                twice = sorted({name for name in names if names.count(name) > 1})
                raise BagError(f"{self._where}: joint {', '.join(twice)} is named twice in one message.")
            self._orders[names] = [names.index(name) for name in self._names]
        return self._orders[names]
