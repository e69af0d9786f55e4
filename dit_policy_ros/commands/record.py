"""The command ``record``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = """Record demonstrations of a scripted expert as rosbag2 MCAP bags, one per episode.

Every bag carries the topics of the live graph: cameras, joint states, commands, instruction and clock. Only episodes
that end in success are kept.

Examples:
  python -m dit_policy_ros record --world aloha_language --episodes 50 --out data/language
  python -m dit_policy_ros record --world aloha_insertion --episodes 10 --seed 500 --out data/more --no-disturb
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--world", required=True, help="simulated task, such as aloha_transfer_cube")
    parser.add_argument("--episodes", type=int, default=50, help="how many seeds to try (default %(default)s)")
    parser.add_argument("--seed", type=int, default=100_000, help="first seed (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the bags")
    parser.add_argument(
        "--robot", default="aloha", help="robot YAML, or the name of a shipped one (default %(default)s)"
    )
    parser.add_argument(
        "--phrases", default="train", help="instructions: plain, train or held_out (default %(default)s)"
    )
    parser.add_argument("--no-disturb", action="store_true", help="do not push the joints off the plan")
    parser.add_argument("--workers", type=int, default=2, help="processes (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Records, and says what was kept."""
    from tqdm import tqdm

    from dit_policy_ros.robot import load_robot
    from dit_policy_ros.sim.record import record_many
    from dit_policy_ros.sim.worlds import find_world

    find_world(args.world)
    robot = load_robot(args.robot)
    seeds = range(args.seed, args.seed + args.episodes)
    outcomes = record_many(args.world, robot, seeds, args.out, args.phrases, not args.no_disturb, args.workers)
    kept = [outcome for outcome in tqdm(outcomes, total=len(seeds), unit="episode") if outcome.strict]
    size_mb = sum(outcome.bytes for outcome in kept) / 1e6
    print(f"Kept {len(kept)} of {len(seeds)} episodes in {args.out} ({size_mb:.0f} MB).")
    return 0
