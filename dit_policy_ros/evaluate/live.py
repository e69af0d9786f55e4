"""Smoothness and stage latencies of a live episode, from what its bag holds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dit_policy_ros.actions.smoothness import Seam, seam_of
from dit_policy_ros.evaluate.smoothness import Smoothness, smoothness_of
from dit_policy_ros.runtime.context_watch import STALE_CONTEXT, ContextWait, ContextWatch
from dit_policy_ros.types import ActionChunk, seconds

_CONTEXT_LIMIT = re.compile(rf"{STALE_CONTEXT}: .*\(limit ([\d.]+) s\)")
_STAGE = re.compile(r"(.+) (p\d+)_ms")


@dataclass(frozen=True)
class Received:
    """A chunk, and when it was received."""

    received_ns: int
    chunk: ActionChunk


def live_smoothness(
    chunks: Sequence[Received],
    plans: Sequence[ActionChunk],
    times_ns: np.ndarray,
    commanded: np.ndarray,
    arms: Sequence[Sequence[str]] = (),
) -> Smoothness:
    """Measures an episode.

    Args:
        chunks: in the order in which they were received.
        plans: what the executor told it was going to do, oldest first; without any, the chunk before stands for it.
        times_ns: (T,) equally spaced.
        commanded: (T, J) at these.
        arms: of ``actions.smoothness.arms_of``.
    """
    seams = live_seams(chunks, plans, arms)
    starts_ns = np.array([received.received_ns for received in chunks], dtype=np.int64)
    newest = np.searchsorted(starts_ns, times_ns, side="right") - 1
    planned = np.array(
        [k >= 0 and t <= chunks[k].chunk.end_ns for k, t in zip(newest, times_ns, strict=True)], dtype=bool
    )
    ages_s = np.array(
        [
            seconds(int(t) - chunks[k].chunk.observation_ns) if fresh else np.nan
            for k, t, fresh in zip(newest, times_ns, planned, strict=True)
        ]
    )
    step_s = seconds(int(times_ns[1] - times_ns[0])) if len(times_ns) > 1 else 0.02
    return smoothness_of(seams, commanded, step_s, planned, ages_s)


def live_seams(
    chunks: Sequence[Received], plans: Sequence[ActionChunk], arms: Sequence[Sequence[str]] = ()
) -> tuple[Seam, ...]:
    """Returns the seam of every chunk; the first joins nothing."""
    if not chunks:
        return ()
    seams = [seam_of(None, chunks[0].chunk, chunks[0].received_ns)]
    for before, after in pairwise(chunks):
        # The newest plan that does not know the chunk yet.
        known = [plan for plan in plans if plan.observation_ns < after.chunk.observation_ns]
        running = known[-1] if known and known[-1].start_ns <= after.received_ns else before.chunk
        seams.append(seam_of(running, after.chunk, after.received_ns, arms))
    return tuple(seams)


def live_context_wait(chunks: Sequence[Received], events: Sequence[tuple[int, str]], end_ns: int) -> ContextWait:
    """Measures what the limit on the age of contexts cost.

    Args:
        chunks: in the order in which they were received.
        events: (instant [ns], "state: reason") of the executor. They tell the limit where it was exceeded; where it
            was not, it is infinite here.
    """
    limits = [match for _, text in events if (match := _CONTEXT_LIMIT.search(text))]
    watch = ContextWatch(float(limits[0].group(1)) if limits else math.inf)
    for received in chunks:
        watch.offered(received.chunk, received.received_ns)
    for received_ns, text in events:
        state, _, reason = text.partition(": ")
        watch.changed(state, reason, received_ns)
    return watch.wait(end_ns)


def stages_of(statuses: Iterable[Any]) -> dict[str, dict[str, float]]:
    """Returns the newest latency percentiles that nodes told in /diagnostics, by node and stage, [ms].

    Args:
        statuses: diagnostic_msgs/DiagnosticStatus, oldest first.
    """
    found: dict[str, dict[str, float]] = {}
    for status in statuses:
        for entry in status.values:
            match = _STAGE.fullmatch(entry.key)
            if match is not None:
                stage = f"{status.name.lstrip('/')}: {match.group(1)}"
                found.setdefault(stage, {})[match.group(2)] = float(entry.value)
    return dict(sorted(found.items()))
