"""Measures the executor on this machine: control rate, memory, and whether anything grows in the long run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray

from dit_policy_ros.ros import qos
from dit_policy_ros.ros.faults.judge import judge
from dit_policy_ros.ros.faults.stand import Stand, check_motion

LIBRARIES = ("libtorch", "cv2")
WINDOW_S = 60.0
"""A soak judges what was commanded in pieces of this length."""


@dataclass(frozen=True)
class ExecutorBench:
    """What the executor's process needed."""

    rate_hz: float
    seconds: float
    periods: int
    missed_deadlines: int
    """Periods whose work was not done when the next one began."""
    lateness_p50_ms: float
    lateness_p99_ms: float
    tick_p50_ms: float
    tick_p99_ms: float
    memory_mb: float
    foreign_libraries: tuple[str, ...]
    """Of those that do not belong into this process."""


@dataclass(frozen=True)
class Soak:
    """A long run in pieces."""

    seconds: float
    memory_mb: tuple[float, ...]
    """Of the executor's process, at the end of each piece."""
    publishers: tuple[int, ...]
    """On the command topics, at the end of each piece; one per controller."""
    unsafe: int
    stops: int
    """Times the arms stopped though nothing was wrong."""
    messages: int

    @property
    def growth_mb(self) -> float:
        """Memory at the end less memory after a fifth of the run."""
        return self.memory_mb[-1] - self.memory_mb[len(self.memory_mb) // 5]


class _Diagnostics:
    """The newest values of the executor's statuses."""

    def __init__(self, stand: Stand) -> None:
        self.values: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()
        stand.node.create_subscription(DiagnosticArray, "/diagnostics", self._store, qos.DIAGNOSTICS)

    def _store(self, message: DiagnosticArray) -> None:
        with self._lock:
            for status in message.status:
                if status.name.startswith("/executor_node"):
                    self.values[status.name] = {pair.key: pair.value for pair in status.values}

    def get(self, part: str, key: str) -> float:
        """Returns a quantity, 0 before it was told."""
        with self._lock:
            return float(self.values.get(part, {}).get(key, 0.0))


def bench_executor(directory: Path, domain_id: int, rate_hz: float, seconds: float) -> ExecutorBench:
    """Runs the whole graph, a scripted policy included, and reads what the executor says of itself."""
    with Stand(directory, domain_id, seed=0, rate_hz=rate_hz) as stand:
        diagnostics = _Diagnostics(stand)
        check_motion(stand)
        time.sleep(seconds)
        maps = Path(f"/proc/{stand.launcher.pid('executor_node')}/maps")
        loaded = maps.read_text() if maps.exists() else ""
        loop = "/executor_node: control loop"
        return ExecutorBench(
            rate_hz=rate_hz,
            seconds=seconds,
            periods=int(diagnostics.get(loop, "periods")),
            missed_deadlines=int(diagnostics.get(loop, "missed deadlines")),
            lateness_p50_ms=diagnostics.get(loop, "period lateness p50_ms"),
            lateness_p99_ms=diagnostics.get(loop, "period lateness p99_ms"),
            tick_p50_ms=diagnostics.get(loop, "tick p50_ms"),
            tick_p99_ms=diagnostics.get(loop, "tick p99_ms"),
            memory_mb=diagnostics.get("/executor_node", "memory_mb"),
            foreign_libraries=tuple(name for name in LIBRARIES if name in loaded),
        )


def soak(directory: Path, domain_id: int, seconds: float, factor: float, tell: Callable[[str], None]) -> Soak:
    """Runs the graph for long and judges it piece by piece.

    Args:
        seconds: of the simulated clock.
        factor: how much faster than real that clock runs.
    """
    memory, publishers, unsafe, stops, messages = [], [], 0, 0, 0
    with Stand(directory, domain_id, seed=0, real_time_factor=factor) as stand:
        diagnostics = _Diagnostics(stand)
        check_motion(stand)
        begin_ns = stand.clock_ns
        while stand.clock_ns - begin_ns < seconds * 1e9:
            stand.forget()
            changes = stand.stops
            piece_ns = min(WINDOW_S, seconds) * 1e9
            end_ns = stand.clock_ns + piece_ns
            stand.wait(lambda end_ns=end_ns: stand.clock_ns >= end_ns, 10.0 * WINDOW_S)
            heard = stand.heard()
            unsafe += bool(judge(stand.robot, heard).violations)
            stops += stand.stops - changes
            messages += len(heard)
            memory.append(diagnostics.get("/executor_node", "memory_mb"))
            publishers.append(sum(stand.node.count_publishers(c.topic) for c in stand.robot.controllers))
            tell(f"{(stand.clock_ns - begin_ns) * 1e-9:.0f} s: {memory[-1]:.1f} MiB, {stops} stops, {unsafe} unsafe")
        return Soak((stand.clock_ns - begin_ns) * 1e-9, tuple(memory), tuple(publishers), unsafe, stops, messages)


def write_json(result: object, path: Path) -> None:
    """Writes a result, one value a line."""
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
