"""Joints that several sources measure, each at its own stamps, as samples of all of them at one instant.

A source is a topic and the names that its messages carry, so two drivers on one topic are two sources.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

_KEPT = 256
"""Samples of a source; the fastest one is interpolated at the stamps of the slowest."""


@dataclass
class _Source:
    """The newest samples of some joints."""

    rank: int
    names: tuple[str, ...]
    times_ns: deque[int] = field(default_factory=lambda: deque(maxlen=_KEPT))
    values: deque[np.ndarray] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def at(self, time_ns: int) -> np.ndarray | None:
        """Returns (V, len(names)) linear between samples; None before the first that is kept."""
        if time_ns < self.times_ns[0]:
            return None
        known_ns = np.array(self.times_ns)
        after = int(np.searchsorted(known_ns, time_ns))
        if known_ns[after] == time_ns:
            return self.values[after]
        share = (time_ns - known_ns[after - 1]) / (known_ns[after] - known_ns[after - 1])
        return (1.0 - share) * self.values[after - 1] + share * self.values[after]


class JointMerge:
    """Takes samples as they arrive; gives one of all joints whenever the slowest source has a new one."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._sources: dict[tuple[int, tuple[str, ...]], _Source] = {}
        self._last_ns: int | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Joints that no source has named so far."""
        named = {name for source in self._sources.values() for name in source.names}
        return tuple(name for name in self._names if name not in named)

    def clear(self) -> None:
        """Forgets every sample and source."""
        self._sources.clear()
        self._last_ns = None

    def add(self, rank: int, time_ns: int, names: Sequence[str], values: np.ndarray) -> tuple[int, np.ndarray] | None:
        """Adds a sample of some joints.

        Args:
            rank: place of the topic in the robot description; of two that name a joint the smaller one has it.
            time_ns: stamp. One that is not later than the source's last is ignored.
            names: of the joints, in the order of the columns; others than the merged ones are ignored.
            values: (V, len(names)), for example positions and velocities.

        Returns:
            Stamp and (V, J) in the order of the merged names, or None while a source has nothing newer.
        """
        source = self._source(rank, tuple(names))
        if source.times_ns and time_ns <= source.times_ns[-1]:
            return None
        source.times_ns.append(int(time_ns))
        source.values.append(np.asarray(values, dtype=np.float64))
        return self._joined()

    def _joined(self) -> tuple[int, np.ndarray] | None:
        owners = self._owners()
        if len(owners) < len(self._names):
            return None
        used = {id(source): source for source, _ in owners}
        time_ns = min(source.times_ns[-1] for source in used.values())
        if self._last_ns is not None and time_ns <= self._last_ns:
            return None
        found = {key: source.at(time_ns) for key, source in used.items()}
        if any(values is None for values in found.values()):
            return None
        self._last_ns = time_ns
        return time_ns, np.stack([found[id(source)][:, column] for source, column in owners], axis=-1)

    def _source(self, rank: int, names: tuple[str, ...]) -> _Source:
        return self._sources.setdefault((rank, names), _Source(rank, names))

    def _owners(self) -> list[tuple[_Source, int]]:
        """Returns the source of each joint and its column there, as far as there is one."""
        ranked = sorted(self._sources.values(), key=lambda source: (source.rank, -len(source.names)))
        owners: dict[str, tuple[_Source, int]] = {}
        for source in ranked:
            for column, name in enumerate(source.names):
                owners.setdefault(name, (source, column))
        return [owners[name] for name in self._names if name in owners]


class JointCollector:
    """Messages with all joints as they come, and messages with some of them merged: the rule of bags and live nodes."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._known = set(self._names)
        self._merge = JointMerge(names)
        self.whole_rank: int | None = None
        """Place of the first topic that has named all joints in one message."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Joints that no message has named so far."""
        return () if self.whole_rank is not None else self._merge.missing

    def clear(self) -> None:
        """Forgets every sample and source."""
        self._merge.clear()
        self.whole_rank = None

    def add(self, rank: int, time_ns: int, names: Sequence[str], values: np.ndarray) -> tuple[int, np.ndarray] | None:
        """Adds a message; see ``JointMerge.add``. Messages with some joints of a topic that has told all are left out.

        Args:
            names: in any order; others than the collected ones are ignored.
        """
        if len(names) >= len(self._names) and self._known.issubset(names):
            self.whole_rank = rank if self.whole_rank is None else min(rank, self.whole_rank)
            if tuple(names) == self._names:
                return time_ns, values
            return time_ns, values[:, [names.index(name) for name in self._names]]
        held = [name for name in names if name in self._known]
        if not held or (self.whole_rank is not None and self.whole_rank <= rank):
            return None
        return self._merge.add(rank, time_ns, held, values[:, [names.index(name) for name in held]])
