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

    measured = asdict(bench_executor(args.out, args.domain, args.rate, args.seconds))
    for name, value in measured.items():
        print(f"{name:20} {value}")
    print(json.dumps(measured))
    return 0


def run_soak(args: argparse.Namespace) -> int:
    """Runs for long; fails where something unsafe was sent or a publisher leaked."""
    _prepare(args)
    from dit_policy_ros.ros.faults.bench import soak, write_json

    result = soak(args.out, args.domain, args.seconds, args.factor, lambda text: print(text, flush=True))
    measured = {**asdict(result), "growth_mb": result.growth_mb}
    write_json(measured, args.out / "soak.json")
    print(json.dumps({key: measured[key] for key in ("seconds", "growth_mb", "unsafe", "stops", "messages")}))
    return int(result.unsafe > 0 or len(set(result.publishers)) > 1)


def run_faults(args: argparse.Namespace) -> int:
    """Injects faults and prints the table; fails where an unsafe command was sent."""
    from dit_policy_ros.errors import ConfigError, one_of

    if args.instants < 1:
        raise ConfigError(f"--instants is {args.instants}; it must be at least 1.")
    _prepare(args)
    from dit_policy_ros.ros.faults.bench import write_json
    from dit_policy_ros.ros.faults.catalogue import FAULTS
    from dit_policy_ros.ros.faults.stand import Stand
    from dit_policy_ros.ros.faults.suite import Instant, rows_of, run_suite, table

    for name in args.fault:
        if name not in FAULTS:
            raise ConfigError(one_of("Fault", name, FAULTS))
    faults = [(name, fault) for name, fault in FAULTS.items() if not args.fault or name in args.fault]

    def tell(instant: Instant) -> None:
        said = "; ".join(instant.violations) or ("safe" if instant.recovered_s is not None else "safe, not recovered")
        print(f"{instant.fault}: {said}", flush=True)

    with Stand(args.out, args.domain, args.seed, record=any(fault.records for _, fault in faults)) as stand:
        done = run_suite(stand, faults, args.instants, tell)
    rows = rows_of(done, faults)
    write_json([asdict(instant) for instant in done], args.out / "faults.json")
    (args.out / "faults.md").write_text(table(rows) + "\n", encoding="utf-8")
    print(table(rows))
    print(json.dumps({"instants": len(done), "unsafe": sum(row.unsafe for row in rows)}))
    return int(any(row.unsafe for row in rows))


def _prepare(args: argparse.Namespace) -> None:
    from dit_policy_ros.ros.environment import local_environment

    os.environ.update(local_environment())
    args.out = Path(args.out).resolve()
    args.out.mkdir(parents=True, exist_ok=True)
