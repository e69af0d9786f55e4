"""What the executor would have prevented in a replay, as many entries as there are; those of a long run lie on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.data.scratch import ScratchTable, release_now_and_then

KINDS = ("position limit", "speed limit", "acceleration limit", "jerk limit", "refused", "policy failed", "state")


@dataclass(frozen=True)
class Intervention:
    """Something the executor would have prevented, or a change of what it does."""

    time_s: float
    """Since the first joint state."""
    kind: str
    """One of ``KINDS``."""
    text: str


class InterventionLog(Sequence[Intervention]):
    """Interventions in the order in which they happened."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """Kind to number."""
        self._times_s, self._kinds = ScratchTable(), ScratchTable(dtype=np.int8)
        self._ends, self._texts = ScratchTable(dtype=np.int64), ScratchTable(dtype=np.uint8)

    def append(self, time_s: float, kind: str, text: str) -> None:
        """Adds one."""
        self.counts[kind] += 1
        self._times_s.append(time_s)
        self._kinds.append(KINDS.index(kind))
        self._texts.extend(np.frombuffer(text.encode(), np.uint8))
        self._ends.append(len(self._texts))

    def __len__(self) -> int:
        return len(self._times_s)

    def __getitem__(self, index: int | slice) -> Intervention | tuple[Intervention, ...]:
        if isinstance(index, slice):
            return tuple(self[k] for k in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"There are {len(self)} interventions; {index} is not among them.")
        index %= len(self)
        times_s, kinds, ends, texts = (t.array() for t in (self._times_s, self._kinds, self._ends, self._texts))
        begin = int(ends[index - 1]) if index else 0
        text = texts[begin : int(ends[index])].tobytes().decode()
        found = Intervention(float(times_s[index]), KINDS[kinds[index]], text)
        release_now_and_then(times_s, kinds, ends, texts)
        return found

    def times_s(self, kind: str) -> np.ndarray:
        """Returns the instants of one kind, (N,)."""
        return self._times_s.array()[self._kinds.array() == KINDS.index(kind)]
