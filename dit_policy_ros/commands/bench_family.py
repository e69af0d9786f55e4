"""``bench family``: a published architecture with random weights, split at the slow and fast border and unsplit."""

from __future__ import annotations

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declares what only this subject reads."""
    parser.add_argument("--config", default="rdt_1b", help="family: rdt_1b or rdt_tiny (default %(default)s)")
    parser.add_argument("--dtype", default="bfloat16", help="family: float32 or bfloat16 (default %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="family: denoising steps (default %(default)s)")
    parser.add_argument(
        "--scratch", help="family: folder for its checkpoint, which is removed again (default: a new one)"
    )


def run_family(args: argparse.Namespace) -> int:
    """Writes and loads a checkpoint, measures, and prints.

    Raises:
        ConfigError: a count is below 1.
        CheckpointError: unknown configuration or type.
    """
    import json
    import tempfile
    from dataclasses import asdict
    from pathlib import Path

    import torch

    from dit_policy_ros.errors import ConfigError
    from dit_policy_ros.policy.family_bench import measure

    if min(args.runs, args.threads, args.steps) < 1:
        raise ConfigError("--runs, --threads and --steps must be at least 1.")
    torch.set_num_threads(args.threads)
    if args.scratch:
        Path(args.scratch).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.scratch, prefix="bench-") as directory:
        times = measure(
            args.config, args.dtype, Path(directory), args.steps, args.runs, lambda line: print(f"  {line}")
        )
    rows = {
        "load [s]": times.load_s,
        "encode [s]": times.encode_s,
        f"act, {args.steps} steps [s]": times.act_s,
        "the same unsplit [s]": times.unsplit_s,
        "unsplit / act": times.unsplit_s / times.act_s,
        "largest difference": times.difference,
        "peak memory when loaded [GiB]": times.loaded_gib,
        "after encode and act [GiB]": times.acted_gib,
        "after the unsplit one [GiB]": times.peak_gib,
    }
    print(f"{args.config}, {args.dtype}, {times.parameters / 1e6:.1f} million parameters, {args.threads} threads")
    for name, value in rows.items():
        print(f"  {name:32}{value:10.4g}")
    options = {"config": args.config, "dtype": args.dtype, "threads": args.threads, "steps": args.steps}
    print(json.dumps({**options, "runs": args.runs, **asdict(times)}))
    return 0
