"""Runs faults at random instants and makes the table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dit_policy_ros.ros.faults.catalogue import Fault
from dit_policy_ros.ros.faults.judge import Heard
from dit_policy_ros.ros.faults.processor import longest_s, waits_s
from dit_policy_ros.ros.faults.recording import Recording, write_recording
from dit_policy_ros.ros.faults.stand import RATE_HZ, Stand, check_motion
from dit_policy_ros.types import nanoseconds

PATIENCE = 6.0
"""A fault lasts at most this many times as long by the real clock."""
TRANSPORT_S = 0.06
"""From the executor to the listener and through the relay: a period of the simulator's clock and two hops."""


@dataclass(frozen=True)
class Instant:
    """One injection."""

    fault: str
    violations: tuple[str, ...]
    slowing_s: float | None
    """From when the fault took effect until the arms only slowed down; None where they need not."""
    recovered_s: float | None
    """From the end of the cause until the arms moved again; None where they did not."""
    messages: int
    starved_s: float | None = None
    """Longest time that a thread of the executor or of the stand was ready to run and got no processor meanwhile."""
    delay_s: float = 0.0
    """From the injection until the fault took effect: a stream freezes at its last fresh message."""


@dataclass(frozen=True)
class Row:
    """All injections of one fault."""

    fault: str
    instants: int
    unsafe: int
    """Injections with at least one unsafe command."""
    slowing_p50_s: float | None
    slowing_max_s: float | None
    allowed_s: float | None
    """What the configured timeout and two control periods allow."""
    recovered: int
    starved_max_s: float | None
    """Of all injections; see ``Instant``."""


def run_instant(stand: Stand, name: str, fault: Fault, into: Path | None = None) -> Instant:
    """Injects one fault while the arms move, and judges everything that was commanded until they move again.

    Args:
        into: file that what was judged is written to.
    """
    check_motion(stand)
    time.sleep(stand.rng.uniform(0.0, 0.7) * stand.slowness)
    stand.forget()
    begin_ns, began_ns = time.monotonic_ns(), time.time_ns()
    waited = waits_s(stand.watched_pids())
    made = fault.begin(stand)
    until_ns = stand.clock_ns + nanoseconds(fault.lasts_s)
    try:
        # A busy machine simulates slowly, and timeouts follow the simulated clock; it may also stand still.
        stand.wait(lambda: stand.clock_ns >= until_ns, PATIENCE * fault.lasts_s * stand.slowness)
    finally:
        over_ns = time.time_ns()
        starved_s = longest_s(waited, waits_s(stand.watched_pids()))
        fault.end(stand, made)
    ended_ns = time.monotonic_ns()
    recovered = stand.wait_for_motion(ended_ns)
    recovered_s = (time.monotonic_ns() - ended_ns) * 1e-9 if recovered else None
    heard = stand.heard()
    delay_ns = (fault.since(made) or began_ns) - began_ns
    clock_ns, end_clock_ns = stand.clock_at(began_ns + delay_ns), stand.clock_at(over_ns)
    delay_s = (clock_ns - stand.clock_at(began_ns)) * 1e-9
    forbidden = None
    if fault.stops_within_s is not None:
        forbidden = (clock_ns + nanoseconds(allowed_s(fault) + TRANSPORT_S), end_clock_ns)
    recording = Recording(tuple(heard), forbidden, fault.misleads)
    if into is not None:
        write_recording(into, recording)
    verdict = recording.judged(stand.robot)
    time.sleep(fault.settles_s * stand.slowness)
    slowing_s = None if fault.stops_within_s is None else _slowing_s(heard, begin_ns + delay_ns, clock_ns, end_clock_ns)
    return Instant(name, verdict.violations, slowing_s, recovered_s, verdict.messages, starved_s, delay_s)


def allowed_s(fault: Fault) -> float:
    """Returns how long a fault may last before the arms only slow down."""
    return (fault.stops_within_s or 0.0) + 2.0 / RATE_HZ


def run_suite(
    stand: Stand,
    plan: Sequence[tuple[str, int]],
    faults: Mapping[str, Fault],
    seed: int,
    tell: Callable[[Instant], None],
) -> None:
    """Injects the faults of a plan. What is random in one depends on the seed, its fault and its number alone."""
    for name, number in plan:
        stand.rng.seed(f"{seed} {name} {number}")
        into = stand.directory / "heard" / f"{name.strip('/').replace('/', '_').replace(' ', '_')}_{number:03}.npz"
        tell(run_instant(stand, name, faults[name], into))


def outstanding(done: Sequence[Instant], names: Iterable[str], instants: int) -> list[tuple[str, int]]:
    """Returns the faults and numbers of the instants that are still to come.

    In rounds, so that a run that is interrupted has about as many of each.
    """
    counts = Counter(instant.fault for instant in done)
    return [(name, number) for number in range(instants) for name in names if number >= counts[name]]


def rows_of(done: Sequence[Instant], faults: Mapping[str, Fault]) -> list[Row]:
    """Returns one row per fault that was injected."""
    rows = []
    for name, fault in faults.items():
        mine = [instant for instant in done if instant.fault == name]
        if not mine:
            continue
        slowing = [instant.slowing_s for instant in mine if instant.slowing_s is not None]
        rows.append(
            Row(
                name,
                len(mine),
                sum(bool(instant.violations) for instant in mine),
                float(np.median(slowing)) if slowing else None,
                max(slowing) if slowing else None,
                None if fault.stops_within_s is None else allowed_s(fault),
                sum(instant.recovered_s is not None for instant in mine),
                max((i.starved_s for i in mine if i.starved_s is not None), default=None),
            )
        )
    return rows


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as Markdown."""
    lines = [
        "| fault | instants | unsafe | slowing p50 [s] | slowing max [s] | allowed [s] | recovered | starved max [s] |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = [row.slowing_p50_s, row.slowing_max_s, row.allowed_s, row.starved_max_s]
        *texts, starved = ["" if value is None else f"{value:.2f}" for value in times]
        counts = f"{row.instants} | {row.unsafe} | {' | '.join(texts)} | {row.recovered} | {starved}"
        lines.append(f"| {row.fault} | {counts} |")
    return "\n".join(lines)


def _slowing_s(heard: Sequence[Heard], begin_ns: int, clock_ns: int, end_clock_ns: int) -> float:
    """Returns when the last motion that was commanded before the arms rested began to do nothing but slow down.

    By the simulated clock, which timeouts follow, or the real one where that says less.
    """
    during = [message for message in heard if message.clock_ns < end_clock_ns]
    first_stop = next((m for m in during if m.heard_ns >= begin_ns and m.only_slows), None)
    if first_stop is not None:
        return min(first_stop.heard_ns - begin_ns, max(0, first_stop.clock_ns - clock_ns)) * 1e-9
    return max((max(0, message.slows_from_ns - clock_ns) for message in during[-2:]), default=0) * 1e-9
