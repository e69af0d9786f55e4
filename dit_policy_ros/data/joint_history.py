"""Joint values over time, with the channels in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.actions.joint_merge import JointCollector
from dit_policy_ros.data.scratch import ScratchTable, release_now_and_then, reordered
from dit_policy_ros.errors import BagError
from dit_policy_ros.types import seconds


@dataclass(frozen=True)
class JointHistory:
    """Measured joints of one episode. The arrays of a long one are read from disk as they are looked at."""

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
    found = values[before] * (1.0 - weight) + values[after] * weight
    release_now_and_then(known_ns, values)
    return found


class HistoryBuilder:
    """Collects messages that name their joints in any order, into arrays in one order.

    Messages that name only some of the joints, on one topic or on several, are merged as they are live.
    """

    def __init__(self, names: tuple[str, ...], where: str) -> None:
        self._names = names
        self._where = where
        self._orders: dict[tuple[str, ...], list[int]] = {}
        self._times_ns = ScratchTable(dtype=np.int64)
        self._positions, self._velocities = ScratchTable(len(names)), ScratchTable(len(names))
        self._newest_ns: int | None = None
        self._is_ordered = self._has_velocities = True
        self._collector = JointCollector(names)
        self._seen: dict[str, None] = {}

    def add(
        self, time_ns: int, names: Sequence[str], positions: np.ndarray, velocities: np.ndarray, rank: int = 0
    ) -> None:
        """Adds one message; joints that the robot lacks are ignored, ``velocities`` may be empty.

        Args:
            rank: place of its topic in the robot description.

        Raises:
            BagError: a joint is named twice, sizes disagree, or a value is not finite.
        """
        names = tuple(names)
        order = self._order(names)
        if len(positions) != len(names):
            raise BagError(f"{self._where}: a message has {len(names)} names but {len(positions)} positions.")
        row = positions[order]
        if not np.isfinite(row).all():
            bad = [names[k] for k in order if not np.isfinite(positions[k])]
            raise BagError(
                f"{self._where}: {', '.join(bad)} is not finite at {seconds(time_ns):.3f} s; "
                "the sensor or driver was at fault, leave this episode out."
            )
        # Drivers without velocity sensing send none, or NaN.
        speeds = velocities[order] if len(velocities) == len(names) else np.full(len(row), np.nan)
        found = self._collector.add(rank, time_ns, [names[k] for k in order], np.stack([row, speeds]))
        if found is not None:
            self._note(found[0], *found[1])

    def build(self) -> JointHistory:
        """Returns what was added, ordered by time; of equal stamps the last one counts.

        Raises:
            BagError: nothing was added, or a joint was never named.
        """
        if self._newest_ns is None:
            raise BagError(self._why_nothing())
        arrays = [self._times_ns.array(), self._positions.array()]
        arrays += [self._velocities.array()] if self._has_velocities else []
        if not self._is_ordered:
            order = _last_of_equals(arrays[0])
            arrays = [reordered(array, order) for array in arrays]
        times_ns, positions, *velocities = arrays
        return JointHistory(self._names, times_ns, positions, velocities[0] if velocities else None)

    def _note(self, time_ns: int, positions: np.ndarray, velocities: np.ndarray) -> None:
        if self._newest_ns is not None and time_ns <= self._newest_ns:
            self._is_ordered = False
        self._newest_ns = int(time_ns)
        self._times_ns.append(time_ns)
        self._positions.append(positions)
        if self._has_velocities:
            self._has_velocities = bool(np.isfinite(velocities).all())
            self._velocities.append(velocities)

    def _why_nothing(self) -> str:
        if not self._seen:
            return f"{self._where}: there is no message."
        missing = self._collector.missing
        if not missing:
            return f"{self._where}: the messages with some of the joints have no instant in common."
        return (
            f"{self._where}: joint {', '.join(missing)} is missing; the message names {', '.join(self._seen)}. "
            "Check the names in the robot YAML against the bag."
        )

    def _order(self, names: tuple[str, ...]) -> list[int]:
        """Returns the columns of the robot's joints in the order of the robot's names, as far as they are there."""
        if names not in self._orders:
            if len(set(names)) != len(names):
                twice = sorted({name for name in names if names.count(name) > 1})
                raise BagError(f"{self._where}: joint {', '.join(twice)} is named twice in one message.")
            self._seen.update(dict.fromkeys(names))
            self._orders[names] = [names.index(name) for name in self._names if name in names]
        return self._orders[names]


def _last_of_equals(times_ns: np.ndarray) -> np.ndarray:
    """Returns the order of increasing instants, and of equal ones the last."""
    # Reversed, so that the first of equals is the last that was received.
    _, index = np.unique(times_ns[::-1], return_index=True)
    return len(times_ns) - 1 - index
