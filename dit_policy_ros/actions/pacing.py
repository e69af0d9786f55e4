"""Slowing a chunk down along its own path."""

from __future__ import annotations

import math
from dataclasses import replace

from dit_policy_ros.types import ActionChunk


def slowed(chunk: ActionChunk, speed: float) -> ActionChunk:
    """Returns the chunk with its time stretched from the end of its committed prefix on; the path stays.

    The prefix repeats what is being executed, which is slow already. What lies beyond the time the chunk was made
    for is cut off: the next chunk comes before.

    Args:
        speed: above 0, at most 1.
    """
    if speed >= 1.0:
        return chunk
    begin = min(max(0, chunk.committed - 1), len(chunk.actions) - 1)
    actions = chunk.actions[begin:]
    count = min(len(actions), max(2, math.ceil((len(actions) - 1) * speed) + 1))
    return replace(
        chunk,
        start_ns=chunk.start_ns + begin * chunk.step_ns,
        step_ns=max(1, round(chunk.step_ns / speed)),
        actions=actions[:count],
        committed=min(chunk.committed, 1),
    )


def repaced(chunk: ActionChunk, now_ns: int, factor: float) -> ActionChunk | None:
    """Returns what is left of a chunk with its speed multiplied by ``factor``, None where nothing is left.

    Changes nothing before the first action after ``now_ns``.
    """
    passed = max(0, -(-(now_ns - chunk.start_ns) // chunk.step_ns))
    if len(chunk.actions) - passed < 2:
        return None
    return replace(
        chunk,
        start_ns=chunk.start_ns + passed * chunk.step_ns,
        step_ns=max(1, round(chunk.step_ns / factor)),
        actions=chunk.actions[passed:],
        committed=0,
    )
