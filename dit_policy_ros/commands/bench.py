"""The command ``bench``."""

from __future__ import annotations

import argparse

from dit_policy_ros.commands import bench_bags, bench_family, bench_limits

HELP = """Measure a policy's latency, or the executor's rate, memory and behaviour under faults, on this machine.

Prints a table, and as its last line the same as JSON. Run it on an idle machine.

  policy    latency of a policy's two systems (default)
  executor  deadlines, jitter and memory of the executor beside the whole graph of real nodes
  faults    inject faults at random instants and judge what is commanded meanwhile
  soak      one simulated hour (3600 s): does anything grow, leak or stop?
  bags      reading images of a bag beside decoding alone, and memory over the length of a bag
  family    a published architecture with random weights: encode and act beside the computation that is not split
  limits    how long limiting one chunk takes, and random and hostile chunks before an independent judge

Examples:
  python -m dit_policy_ros bench
  python -m dit_policy_ros bench --policy models/mine --threads 2 --runs 200
  python -m dit_policy_ros bench executor --rate 200 --priority 40
  python -m dit_policy_ros bench faults --instants 20 --out faults
  python -m dit_policy_ros bench faults --fault "e-stop topic" --instants 5
  python -m dit_policy_ros bench soak --seconds 3600 --factor 4 --out soak
  python -m dit_policy_ros bench bags --bag bags/run_000 --robot aloha --minutes 1 60
  python -m dit_policy_ros bench family --config rdt_1b --dtype bfloat16 --threads 2 --runs 3
  python -m dit_policy_ros bench limits --chunks 1000000 --seed 7
"""


_ROBOT = {"executor": "run_executor", "faults": "run_faults", "soak": "run_soak"}
"""What needs ROS, to the function of ``bench_robot``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "what", nargs="?", default="policy", choices=(*_ROBOT, "bags", "family", "limits", "policy"), help="see above"
    )
    parser.add_argument("--out", default="bench_output", help="folder for logs and results (default %(default)s)")
    parser.add_argument("--domain", type=int, default=91, help="ROS domain of the graph (default %(default)s)")
    parser.add_argument("--rate", type=float, default=200.0, help="executor: control rate, [Hz] (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="executor, soak: length, [s] (default %(default)s)")
    parser.add_argument("--factor", type=float, default=1.0, help="faults, soak: clock's speed (default %(default)s)")
    parser.add_argument("--instants", type=int, default=1, help="faults: injections of each (default %(default)s)")
    parser.add_argument("--fault", action="append", default=[], help="faults: only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="faults: of the random instants (default %(default)s)")
    parser.add_argument(
        "--priority", type=int, default=0, help="executor, faults: real-time priority of the executor (default none)"
    )
    parser.add_argument("--policy", default="demo", help="policy directory, or a shipped name (default %(default)s)")
    parser.add_argument(
        "--instruction",
        default="hand the red cube to the left arm",
        help="what the policy is asked; one of the file where its language comes from one (default '%(default)s')",
    )
    parser.add_argument("--device", default="cpu", help="policy: where it runs: cpu, cuda or cuda:1 (default cpu)")
    parser.add_argument("--runs", type=int, default=100, help="measured calls of each system (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default %(default)s)")
    bench_family.add_options(parser)
    bench_bags.add_options(parser)
    bench_limits.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measures and prints."""
    if args.what in _ROBOT:
        from dit_policy_ros.commands import bench_robot

        return getattr(bench_robot, _ROBOT[args.what])(args)
    runners = {
        "bags": bench_bags.run_bags,
        "family": bench_family.run_family,
        "limits": bench_limits.run_limits_bench,
        "policy": _run_policy,
    }
    return runners[args.what](args)


def _run_policy(args: argparse.Namespace) -> int:
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
    policy = load_policy(args.policy, device=args.device)
    observation = policy.example_observation()
    context = policy.encode(observation, args.instruction)
    free = policy.act(observation, context)
    count = getattr(policy, "commit_multiple", 1)
    committed = ActionChunk(free.names, free.start_ns, free.step_ns, free.actions[:count])
    calls = {
        "encode": lambda: policy.encode(observation, args.instruction),
        "act": lambda: policy.act(observation, context),
        "act with a committed prefix": lambda: policy.act(observation, context, committed),
    }
    measured = {}
    print(f"{'[ms]':30}{'p50':>8}{'p95':>8}{'p99':>8}   {args.runs} runs, {args.threads} threads, {args.device}")
    for name, call in calls.items():
        call()
        durations_ms = []
        for _ in range(args.runs):
            begin_ns = time.perf_counter_ns()
            call()
            durations_ms.append((time.perf_counter_ns() - begin_ns) / 1e6)
        measured[name] = {f"p{p}_ms": round(float(np.percentile(durations_ms, p)), 3) for p in (50, 95, 99)}
        print(f"{name:30}" + "".join(f"{value:8.2f}" for value in measured[name].values()))
    options = {"threads": args.threads, "device": args.device, "runs": args.runs}
    print(json.dumps({"policy": str(args.policy), **options, "latency": measured}))
    return 0
