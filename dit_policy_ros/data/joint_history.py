"""Joint values over time, with the channels in a fixed order."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.actions.joint_merge import JointMerge
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
    """Collects messages that name their joints in any order, into arrays in one order.

    Messages that name only some of the joints, on one topic or on several, are merged as they are live.
    """

    def __init__(self, names: tuple[str, ...], where: str) -> None:
        self._names = names
        self._where = where
        self._orders: dict[tuple[str, ...], list[int]] = {}
        self._times_ns, self._positions, self._velocities = array("q"), array("d"), array("d")
        self._merge = JointMerge(names)
        self._whole_rank: int | None = None
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
        if len(order) == len(self._names):
            self._whole_rank = rank if self._whole_rank is None else min(rank, self._whole_rank)
            self._note(time_ns, row, speeds)
        elif order and (self._whole_rank is None or rank < self._whole_rank):
            found = self._merge.add(rank, time_ns, [names[k] for k in order], np.stack([row, speeds]))
            if found is not None:
                self._note(found[0], *found[1])

    def build(self) -> JointHistory:
        """Returns what was added, ordered by time; of equal stamps the last one counts.

        Raises:
            BagError: nothing was added, or a joint was never named.
        """
        if not self._times_ns:
            raise BagError(self._why_nothing())
        times_ns = np.frombuffer(self._times_ns, dtype=np.int64)
        positions, velocities = (
            np.frombuffer(values, dtype=np.float64).reshape(-1, len(self._names))
            for values in (self._positions, self._velocities)
        )
        known = velocities if np.isfinite(velocities).all() else None
        if (np.diff(times_ns) > 0).all():  # As it should be; nothing is copied.
            return JointHistory(self._names, times_ns, positions, known)
        # Reversed, so that "first of equals" below means the last one received.
        unique_ns, index = np.unique(times_ns[::-1], return_index=True)
        index = len(times_ns) - 1 - index
        return JointHistory(self._names, unique_ns, positions[index], None if known is None else known[index])

    def _note(self, time_ns: int, positions: np.ndarray, velocities: np.ndarray) -> None:
        self._times_ns.append(int(time_ns))
        self._positions.frombytes(np.ascontiguousarray(positions, np.float64).tobytes())
        self._velocities.frombytes(np.ascontiguousarray(velocities, np.float64).tobytes())

    def _why_nothing(self) -> str:
        if not self._seen:
            return f"{self._where}: there is no message."
        missing = self._merge.missing
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
