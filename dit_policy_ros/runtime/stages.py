"""Latencies of the stages that an observation goes through on its way to the controllers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dit_policy_ros.runtime.latency import LatencyWindow

STAGES = ("receive", "decode", "synchronise", "encode", "act", "fuse", "publish")
"""receive: from a message's stamp to its callback, on the ROS clock; the others are durations of work."""
NS_PER_MS = 1_000_000


class Stages:
    """Windows by stage. ``add`` may be called from several threads, one per stage."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Starts empty.

        Args:
            clock: steady, [ns].
        """
        self._clock = clock
        self._windows = {stage: LatencyWindow() for stage in STAGES}

    def add(self, stage: str, duration_ns: int) -> None:
        """Notes one duration; the first of every stage is a warm-up and is ignored."""
        self._windows[stage].add(duration_ns)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Measures what is done inside, also where it fails."""
        begin_ns = self._clock()
        try:
            yield
        finally:
            self.add(stage, self._clock() - begin_ns)

    def measure(self) -> dict[str, object]:
        """Returns percentiles by name, such as 'act p95_ms', of the stages that ran."""
        measured: dict[str, object] = {}
        for stage, window in self._windows.items():
            for percent in (50, 95, 99):
                value = window.percentile_ns(float(percent))
                if value is not None:
                    measured[f"{stage} p{percent}_ms"] = value / NS_PER_MS
        return measured
