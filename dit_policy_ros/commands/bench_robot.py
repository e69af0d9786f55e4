"""The parts of ``bench`` that run real nodes: ``executor``, ``faults`` and ``soak``."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path


def run_executor(args: argparse.Namespace) -> int:
    """Measures the control loop beside the whole graph."""
    _prepare(args)
    from dit_policy_ros.ros.faults.bench import bench_executor

    measured = asdict(bench_executor(args.out, args.domain, args.rate, args.seconds, args.priority))
    for name, value in measured.items():
        print(f"{name:20} {value}")
    print(json.dumps(measured))
    return 0


def run_soak(args: argparse.Namespace) -> int:
    """Runs for long; fails where something unsafe was sent, a publisher leaked or a watchdog slept."""
    _prepare(args)
    from dit_policy_ros.ros.faults.bench import Soak, soak, write_json

    def tell(result: Soak) -> None:
        write_json({**asdict(result), "growth_mb": result.growth_mb}, args.out / "soak.json")
        sizes = ", ".join(f"{node} {values[-1]:.1f}" for node, values in result.memory_mb.items())
        counts = f"{result.stops} stops, {result.unsafe} unsafe, {result.missed} of {result.watchdogs} watchdogs missed"
        print(f"{result.seconds:.0f} s: {counts}; [MiB] {sizes}", flush=True)

    result = soak(args.out, args.domain, args.seconds, args.factor, tell)
    keys = ("seconds", "unsafe", "stops", "messages", "watchdogs", "missed")
    print(json.dumps({**{key: getattr(result, key) for key in keys}, "growth_mb": result.growth_mb}))
    return int(result.unsafe > 0 or result.missed > 0 or len(set(result.publishers)) > 1)


def run_faults(args: argparse.Namespace) -> int:
    """Injects faults and prints the table; fails where an unsafe command was sent; goes on with what ``--out`` has."""
    from dit_policy_ros.errors import ConfigError, one_of

    if args.instants < 1:
        raise ConfigError(f"--instants is {args.instants}; it must be at least 1.")
    _prepare(args)
    from dit_policy_ros.ros.faults.catalogue import FAULTS
    from dit_policy_ros.ros.faults.journal import append_instant, read_journal
    from dit_policy_ros.ros.faults.stand import Stand
    from dit_policy_ros.ros.faults.suite import Instant, outstanding, rows_of, run_suite, table

    for name in args.fault:
        if name not in FAULTS:
            raise ConfigError(one_of("Fault", name, FAULTS))
    journal = args.out / "faults.jsonl"
    done = read_journal(journal)

    def tell(instant: Instant) -> None:
        done.append(instant)
        append_instant(journal, instant)
        said = "; ".join(instant.violations) or ("safe" if instant.recovered_s is not None else "safe, not recovered")
        print(f"{instant.fault}: {said}", flush=True)

    # A recorder hears the cameras, and rendering them costs more than all the rest.
    for records in (False, True):
        names = [n for n, fault in FAULTS.items() if fault.records == records and (not args.fault or n in args.fault)]
        plan = outstanding(done, names, args.instants)
        if plan:
            how = {"record": records, "real_time_factor": args.factor, "priority": args.priority}
            with Stand(args.out, args.domain, args.seed, **how) as stand:
                run_suite(stand, plan, FAULTS, args.seed, tell)
    rows = rows_of(done, FAULTS)
    (args.out / "faults.md").write_text(table(rows) + "\n", encoding="utf-8")
    print(table(rows))
    print(json.dumps({"instants": len(done), "unsafe": sum(row.unsafe for row in rows)}))
    return int(any(row.unsafe for row in rows))


def _prepare(args: argparse.Namespace) -> None:
    from dit_policy_ros.ros.environment import local_environment

    os.environ.update(local_environment())
    args.out = Path(args.out).resolve()
    args.out.mkdir(parents=True, exist_ok=True)
