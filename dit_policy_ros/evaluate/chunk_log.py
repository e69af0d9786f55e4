"""Chunks in the order in which they were made, as many as there are; those of a long run lie on disk."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dit_policy_ros.data.scratch import ScratchTable, release_now_and_then
from dit_policy_ros.types import ActionChunk


class ChunkLog:
    """Chunks of one policy: all have the same channels."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._heads = ScratchTable(7, np.int64)
        """Length, and the numbers of a chunk in the order of its fields."""
        self._actions = ScratchTable()

    def append(self, chunk: ActionChunk) -> None:
        """Adds a chunk."""
        self._names = chunk.names
        head = (chunk.start_ns, chunk.step_ns, chunk.observation_ns, chunk.context_ns, chunk.epoch, chunk.committed)
        self._heads.append((len(chunk.actions), *head))
        self._actions.extend(chunk.actions.reshape(-1))

    def __len__(self) -> int:
        return len(self._heads)

    def __iter__(self) -> Iterator[ActionChunk]:
        heads, actions, at = self._heads.array(), self._actions.array(), 0
        for length, start_ns, step_ns, *provenance in heads.tolist():
            size = length * len(self._names)
            values = actions[at : at + size].reshape(length, -1).copy()
            release_now_and_then(actions)
            yield ActionChunk(self._names, start_ns, step_ns, values, *provenance)
            at += size
