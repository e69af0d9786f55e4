"""The limits part of ``bench``."""

from __future__ import annotations

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--chunks", type=int, default=100_000, help="limits: chunks of one joint (default %(default)s)")
    parser.add_argument("--joints", type=int, default=500, help="limits: planned for at once (default %(default)s)")


def run_limits_bench(args: argparse.Namespace) -> int:
    """Times the limiter, puts it to the test, and prints; returns 1 where something left a limit."""
    import json

    import numpy as np

    from dit_policy_ros.errors import ConfigError
    from dit_policy_ros.evaluate.limit_run import run_limits, time_limiter
    from dit_policy_ros.robot import load_robot

    if min(args.chunks, args.joints, args.runs) < 1:
        raise ConfigError("--chunks, --joints and --runs must be at least 1.")
    robot = load_robot(args.robot or "aloha")
    measured = {}
    print(f"{'limiting one chunk [ms]':30}{'p50':>8}{'p95':>8}{'p99':>8}   {args.runs} runs, {robot.name}")
    for kind, seconds in time_limiter(robot, args.runs).items():
        measured[kind] = {f"p{p}_ms": round(float(np.percentile(seconds * 1e3, p)), 3) for p in (50, 95, 99)}
        print(f"{kind:30}" + "".join(f"{value:8.2f}" for value in measured[kind].values()), flush=True)
    found = run_limits(args.chunks, args.seed, args.joints)
    print(f"{found.chunks} chunks of one joint in {found.seconds:.0f} s, {found.holds} holds, seed {args.seed}")
    print(f"closest to the limits: {', '.join(f'{kind} {share:.1%}' for kind, share in found.worst.items())}")
    print(f"refused: {dict(found.refused) or 'none'}; outside limits: {dict(found.violations) or 'none'}")
    summary = {"chunks": found.chunks, "holds": found.holds, "seed": args.seed, "seconds": round(found.seconds, 1)}
    print(json.dumps({**summary, "violations": dict(found.violations), "worst": found.worst, "latency": measured}))
    return 1 if found.violations else 0
