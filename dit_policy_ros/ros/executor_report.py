"""What the executor says of its limits and its control loop in /diagnostics."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dit_policy_ros.actions.limits import KINDS
from dit_policy_ros.ros.diagnostics import OK, WARN, Status
from dit_policy_ros.ros.pacer import Pacer
from dit_policy_ros.runtime.context_watch import ContextWatch
from dit_policy_ros.runtime.executor import Executor
from dit_policy_ros.runtime.latency import LatencyWindow
from dit_policy_ros.runtime.margins import Margins

NS_PER_MS = 1_000_000


def limit_statuses(executor: Executor, margins: Margins) -> dict[str, Status]:
    """Returns hits and, where known, the closest margin of each limit, by its name."""
    statuses = {}
    for kind in KINDS:
        hits = getattr(executor, f"{kind}_hits")
        values: dict[str, object] = {}
        if kind in margins.closest:
            values = {"closest margin": margins.closest[kind].share, "of joint": margins.closest[kind].joint}
        values |= {f"hits {name}": int(count) for name, count in zip(executor.names, hits, strict=True) if count}
        text = f"chunks went beyond it {int(hits.sum())} times" if hits.any() else "ok"
        statuses[f"limit {kind}"] = Status(OK, text, values)
    for guard, count in dict(executor.interventions).items():
        statuses[f"guard {guard}"] = Status(OK, f"changed {count} chunks", {"interventions": count})
    return statuses


def intervention_counts(executor: Executor) -> dict[str, int]:
    """Returns how often each kind of chunk was refused, each limit was hit and each guard changed a motion."""
    refused = {f"refused {kind}": count for kind, count in dict(executor.refusals).items()}
    limited = {f"{kind} limit": int(getattr(executor, f"{kind}_hits").sum()) for kind in KINDS}
    return {**refused, **limited, **{f"guard {name}": count for name, count in dict(executor.interventions).items()}}


def context_status(watch: ContextWatch, now_ns: int) -> Status:
    """Returns what the limit on the age of contexts costs, and what to do about it."""
    wait = watch.wait(now_ns)
    values: dict[str, object] = {"held_percent": 100.0 * wait.share, "max_context_age_s": wait.limit_s}
    if wait.needed_s is not None:
        values["needed p95_s"] = wait.needed_s
    text = wait.advice()
    return Status(WARN if text else OK, text or "ok", values)


def stage_status(pacer: Pacer, stages: Mapping[str, LatencyWindow]) -> Status:
    """Returns the rate and the latencies of a loop."""
    values: dict[str, object] = {
        "periods": pacer.periods,
        "missed deadlines": pacer.misses,
        "late periods": pacer.overruns,
    }
    for name, window in {**stages, "period lateness": pacer.lateness}.items():
        for percent in (50, 99):
            value = window.percentile_ns(float(percent))
            if value is not None:
                values[f"{name} p{percent}_ms"] = value / NS_PER_MS
    too_slow = pacer.periods > 100 and pacer.misses > pacer.periods // 20
    text = "more than one period in twenty is late; lower rate_hz or free the processor" if too_slow else "ok"
    return Status(WARN if too_slow else OK, text, values)


def resident_mb(process: int | str = "self") -> float:
    """Returns the resident memory of a process, this one by default, [MiB]; 0 where the system does not tell."""
    statm = Path(f"/proc/{process}/statm")
    if not statm.exists():
        return 0.0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
