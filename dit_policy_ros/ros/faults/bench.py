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
from dit_policy_ros.ros.executor_report import resident_mb
from dit_policy_ros.ros.faults.catalogue import FAULTS
from dit_policy_ros.ros.faults.judge import judge
from dit_policy_ros.ros.faults.stand import Stand, check_motion
from dit_policy_ros.ros.faults.suite import run_instant

LIBRARIES = ("libtorch", "cv2")
NODES = ("sim_node", "executor_node", "vlm_node", "dit_node")
PROBES = ("/joint_states dropped", "/chunk dropped", "/context dropped", "enable withdrawn")
"""What is taken away, in turn."""
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
    memory_mb: dict[str, list[float]]
    """Node to the resident memory of its process at the end of each piece."""
    publishers: tuple[int, ...]
    """On the command topics, at the end of each piece; one per controller."""
    unsafe: int
    stops: int
    """Times the arms stopped though nothing was wrong."""
    messages: int
    watchdogs: int
    """Times an input was taken away, once after each piece."""
    missed: int
    """Of these, after which the arms did not slow down in time or did not move again."""

    @property
    def growth_mb(self) -> dict[str, float]:
        """Node to its memory at the end less that after a fifth of the run."""
        return {node: round(values[-1] - values[len(values) // 5], 2) for node, values in self.memory_mb.items()}


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


def bench_executor(directory: Path, domain_id: int, rate_hz: float, seconds: float, priority: int = 0) -> ExecutorBench:
    """Runs the whole graph, a scripted policy included, and reads what the executor says of itself."""
    with Stand(directory, domain_id, seed=0, rate_hz=rate_hz, priority=priority) as stand:
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


def soak(directory: Path, domain_id: int, seconds: float, factor: float, tell: Callable[[Soak], None]) -> Soak:
    """Runs the graph for long and judges it piece by piece; after each, one watchdog is put to the test.

    Args:
        seconds: of the simulated clock, without those of the watchdogs' tests.
        factor: how much faster than real that clock runs.
        tell: gets what there is after each piece.
    """
    so_far = Soak(0.0, {node: [] for node in NODES}, (), 0, 0, 0, 0, 0)
    with Stand(directory, domain_id, seed=0, real_time_factor=factor) as stand:
        check_motion(stand)
        while so_far.seconds < seconds:
            so_far = _piece(stand, so_far, min(WINDOW_S, seconds))
            tell(so_far)
    return so_far


def _piece(stand: Stand, before: Soak, length_s: float) -> Soak:
    stand.forget()
    begin_ns, stops = stand.clock_ns, stand.stops
    end_ns = begin_ns + round(length_s * 1e9)
    stand.wait(lambda: stand.clock_ns >= end_ns, 10.0 * WINDOW_S)
    done_s, stops = (stand.clock_ns - begin_ns) * 1e-9, stand.stops - stops
    heard = stand.heard()
    memory = {node: [*values, resident_mb(stand.launcher.pid(node))] for node, values in before.memory_mb.items()}
    publishers = sum(stand.node.count_publishers(controller.topic) for controller in stand.robot.controllers)
    name = PROBES[before.watchdogs % len(PROBES)]
    probe = run_instant(stand, name, FAULTS[name])
    return Soak(
        seconds=before.seconds + done_s,
        memory_mb=memory,
        publishers=(*before.publishers, publishers),
        unsafe=before.unsafe + bool(judge(stand.robot, heard).violations),
        stops=before.stops + stops,
        messages=before.messages + len(heard),
        watchdogs=before.watchdogs + 1,
        missed=before.missed + (bool(probe.violations) or probe.recovered_s is None),
    )


def write_json(result: object, path: Path) -> None:
    """Writes a result, one value a line."""
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
