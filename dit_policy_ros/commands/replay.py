"""The command ``replay``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = """Run a policy over a recording in virtual time, and show how far it is from what was done.

The runtime code is that of the live nodes; nothing moves, and two runs give the same report but for its date.
--mode open-loop holds every chunk against the recorded commands, beside three simple predictions. --mode shadow also
shows what the executor would have sent, and every limit that would have been hit.

Examples:
  python -m dit_policy_ros replay bags/run_000 --policy models/mine --robot aloha --report out
  python -m dit_policy_ros replay bags/run_000 --policy models/mine --robot my_robot.yaml --mode shadow --report out
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("bag", type=Path, metavar="BAG", help="rosbag2 folder, or a .mcap or .db3 file")
    parser.add_argument("--policy", required=True, help="policy directory, or the name of a shipped one")
    parser.add_argument("--robot", required=True, help="robot YAML, or a shipped name")
    parser.add_argument("--report", type=Path, required=True, metavar="DIR", help="for report.json and index.html")
    parser.add_argument(
        "--mode", default="open-loop", choices=("open-loop", "shadow"), help="see above (default %(default)s)"
    )
    parser.add_argument("--context-delay", type=float, default=0.3, metavar="S", help="default %(default)s s")
    parser.add_argument("--action-delay", type=float, default=0.06, metavar="S", help="default %(default)s s")


def run(args: argparse.Namespace) -> int:
    """Replays, prints the errors and says where the page is."""
    import hashlib

    import torch

    from dit_policy_ros.data.bag_reader import open_episode
    from dit_policy_ros.errors import ConfigError
    from dit_policy_ros.evaluate.horizon_errors import METHODS
    from dit_policy_ros.evaluate.loop import LoopConfig
    from dit_policy_ros.evaluate.replay import run_replay
    from dit_policy_ros.evaluate.replay_page import moment_images, write_replay_page
    from dit_policy_ros.evaluate.replay_report import (
        ReplayOrigin,
        make_replay_report,
        recording_sha256,
        write_replay_json,
    )
    from dit_policy_ros.policy.checkpoint import find_policy, load_policy, weights_sha256
    from dit_policy_ros.resources import find_config
    from dit_policy_ros.robot import load_robot

    if args.context_delay < 0.0 or args.action_delay < 0.0:
        raise ConfigError("--context-delay and --action-delay are times in seconds; they cannot be negative.")
    # One thread adds up in one order.
    torch.set_num_threads(1)
    robot = load_robot(args.robot)
    policy = load_policy(args.policy)
    episode = open_episode(args.bag, robot, recover=True)
    config = LoopConfig(context_delay_s=args.context_delay, action_delay_s=args.action_delay)
    result = run_replay(episode, policy, args.mode, config)
    directory = find_policy(args.policy)
    origin = ReplayOrigin(
        bag=args.bag.resolve().name,
        bag_sha256=recording_sha256(episode.bag.path),
        policy=directory.resolve().name,
        policy_sha256=weights_sha256(directory),
        robot=Path(args.robot).name,
        robot_sha256=hashlib.sha256(find_config("robots", args.robot).read_bytes()).hexdigest(),
        delays_s={"context": args.context_delay, "action": args.action_delay},
        lost=episode.lost.replace(str(episode.bag.path.parent) + "/", ""),
    )
    report = make_replay_report(origin, result)
    cameras = tuple(dict.fromkeys((*policy.slow_cameras, *policy.fast_cameras)))
    write_replay_json(report, args.report)
    page = write_replay_page(report, moment_images(episode, report, cameras), args.report)
    for text in result.suspicions:
        print(f"suspicious: {text}")
    errors = ", ".join(f"{name} {value:.4f}" for name, value in zip(METHODS, result.errors.overall, strict=True))
    print(f"Mean error over {len(result.errors.chunk_ns)} chunks: {errors}")
    print(f"Page: {page}")
    return 0
