"""The command ``bench``."""

from __future__ import annotations

import argparse

HELP = """Measure how long a policy's two systems take on this machine.

Prints a table of medians and percentiles, and as its last line the same as JSON. Run it on an idle machine.

Examples:
  python -m dit_policy_ros bench
  python -m dit_policy_ros bench --policy models/mine --threads 2 --runs 200
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--policy", default="demo", help="policy directory, or a shipped name (default %(default)s)")
    parser.add_argument("--runs", type=int, default=100, help="measured calls of each system (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Measures and prints."""
    import json
    import time

    import numpy as np
    import torch

    from dit_policy_ros.errors import ConfigError
    from dit_policy_ros.policy.checkpoint import load_policy
    from dit_policy_ros.types import ActionChunk

    if args.runs < 1 or args.threads < 1:
        raise ConfigError("--runs and --threads must be at least 1.")
    torch.set_num_threads(args.threads)
    policy = load_policy(args.policy)
    observation = policy.example_observation()
    context = policy.encode(observation, "hand the red cube to the left arm")
    free = policy.act(observation, context)
    count = policy.commit_multiple
    committed = ActionChunk(free.names, free.start_ns, free.step_ns, free.actions[:count])
    calls = {
        "encode": lambda: policy.encode(observation, "hand the red cube to the left arm"),
        "act": lambda: policy.act(observation, context),
        "act with a committed prefix": lambda: policy.act(observation, context, committed),
    }
    measured = {}
    print(f"{'[ms]':30}{'p50':>8}{'p95':>8}{'p99':>8}   {args.runs} runs, {args.threads} threads")
    for name, call in calls.items():
        call()
        durations_ms = []
        for _ in range(args.runs):
            begin_ns = time.perf_counter_ns()
            call()
            durations_ms.append((time.perf_counter_ns() - begin_ns) / 1e6)
        measured[name] = {f"p{p}_ms": round(float(np.percentile(durations_ms, p)), 3) for p in (50, 95, 99)}
        print(f"{name:30}" + "".join(f"{value:8.2f}" for value in measured[name].values()))
    print(json.dumps({"policy": str(args.policy), "threads": args.threads, "runs": args.runs, "latency": measured}))
    return 0
