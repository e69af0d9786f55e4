"""The command ``replay``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = """Run a policy over a recording in virtual time, and show how far it is from what was done.

The runtime code is that of the live nodes; nothing moves, and two runs give the same report but for its date.
--mode open-loop holds every chunk against the recorded commands, beside three simple predictions. --mode shadow also
shows what the executor would have sent, and every limit that would have been hit.

Several policies are replayed one after the other, each into a folder of its own, and compared.

Examples:
  python -m dit_policy_ros replay bags/run_000 --policy models/mine --robot aloha --report out
  python -m dit_policy_ros replay bags/run_000 --policy models/mine --robot my_robot.yaml --mode shadow --report out
  python -m dit_policy_ros replay bags/long_run --episode 3 --policy models/a models/b --robot aloha --report out
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("bag", type=Path, metavar="BAG", help="rosbag2 folder, or a .mcap or .db3 file")
    parser.add_argument(
        "--policy", required=True, nargs="+", help="policy directories, or names of shipped ones; several are compared"
    )
    parser.add_argument("--robot", required=True, help="robot YAML, or a shipped name")
    parser.add_argument("--report", type=Path, required=True, metavar="DIR", help="for report.json and index.html")
    parser.add_argument(
        "--mode", default="open-loop", choices=("open-loop", "shadow"), help="see above (default %(default)s)"
    )
    parser.add_argument("--mcap", action="store_true", help="also write DIR/watch, a bag for Foxglove")
    parser.add_argument("--rerun", action="store_true", help="also write DIR/replay.rrd, for Rerun")
    parser.add_argument("--episode", type=int, metavar="N", help="which one, from 0, where the bag holds several")
    parser.add_argument("--device", default="cpu", help="where policies run: cpu, cuda or cuda:1 (default cpu)")
    parser.add_argument("--context-delay", type=float, default=0.3, metavar="S", help="default %(default)s s")
    parser.add_argument("--action-delay", type=float, default=0.06, metavar="S", help="default %(default)s s")


def run(args: argparse.Namespace) -> int:
    """Replays, prints the errors and says where the page is."""
    import torch

    from dit_policy_ros.data.bag_reader import open_episode
    from dit_policy_ros.errors import ConfigError
    from dit_policy_ros.evaluate.comparison import compare, load_runs
    from dit_policy_ros.evaluate.comparison_page import write_comparison
    from dit_policy_ros.policy.checkpoint import find_policy
    from dit_policy_ros.robot import load_robot

    if args.context_delay < 0.0 or args.action_delay < 0.0:
        raise ConfigError("--context-delay and --action-delay are times in seconds; they cannot be negative.")
    # One thread adds up in one order.
    torch.set_num_threads(1)
    robot = load_robot(args.robot)
    episode = open_episode(args.bag, robot, recover=True, index=args.episode)
    if len(args.policy) == 1:
        _replay(args, args.policy[0], episode, args.report)
        return 0
    names = [find_policy(policy).resolve().name for policy in args.policy]
    if len(set(names)) < len(names):
        raise ConfigError(f"Policies of one name ({', '.join(names)}) would share a folder; rename one.")
    folders = [args.report / name for name in names]
    for policy, folder in zip(args.policy, folders, strict=True):
        _replay(args, policy, episode, folder)
    command = f"python -m dit_policy_ros compare {' '.join(names)} --report DIR"
    print(f"Comparison: {write_comparison(compare(load_runs(folders), command), args.report)}")
    return 0


def _replay(args, policy_name, episode, folder) -> None:
    """Replays one policy and writes its report."""
    import hashlib

    from dit_policy_ros.evaluate.chunk_log import ChunkLog
    from dit_policy_ros.evaluate.horizon_errors import METHODS
    from dit_policy_ros.evaluate.loop import LoopConfig
    from dit_policy_ros.evaluate.replay import SHADOW, run_replay
    from dit_policy_ros.evaluate.replay_page import moment_images, write_replay_page
    from dit_policy_ros.evaluate.replay_report import (
        ReplayOrigin,
        make_replay_report,
        recording_sha256,
        write_interventions,
        write_replay_json,
    )
    from dit_policy_ros.policy.checkpoint import find_policy, load_policy, weights_sha256
    from dit_policy_ros.resources import find_config

    policy = load_policy(policy_name, device=args.device)
    config = LoopConfig(context_delay_s=args.context_delay, action_delay_s=args.action_delay)
    chunks = ChunkLog()
    result = run_replay(episode, policy, args.mode, config, chunks.append if args.mcap or args.rerun else None)
    directory = find_policy(policy_name)
    origin = ReplayOrigin(
        bag=args.bag.resolve().name,
        bag_sha256=recording_sha256(episode.bag.path),
        policy=directory.resolve().name,
        policy_sha256=weights_sha256(directory),
        robot=Path(args.robot).name,
        robot_sha256=hashlib.sha256(find_config("robots", args.robot).read_bytes()).hexdigest(),
        delays_s={"context": args.context_delay, "action": args.action_delay},
        lost=episode.lost.replace(str(episode.bag.path.parent) + "/", ""),
        episode=args.episode,
    )
    report = make_replay_report(origin, result)
    cameras = tuple(dict.fromkeys((*policy.slow_cameras, *policy.fast_cameras)))
    write_replay_json(report, folder)
    if args.mode == SHADOW:
        write_interventions(report, folder)
    page = write_replay_page(report, moment_images(episode, report, cameras), folder, _view(episode.robot))
    if args.mcap:
        from dit_policy_ros.evaluate.watch_mcap import write_watch_bag

        print(f"Foxglove: {write_watch_bag(folder / 'watch', episode, result, chunks)}")
    if args.rerun:
        from dit_policy_ros.evaluate.watch_rerun import write_rerun

        print(f"Rerun: {write_rerun(folder / 'replay.rrd', episode, result, chunks)}")
    if report.origin.lost:
        print(f"damaged: {report.origin.lost}.")
    for text in result.suspicions:
        print(f"suspicious: {text}")
    errors = ", ".join(f"{name} {value:.4f}" for name, value in zip(METHODS, result.errors.overall, strict=True))
    print(f"Mean error over {len(result.errors.chunk_ns)} chunks: {errors}")
    print(f"Page: {page}")


def _view(robot):
    """Returns what draws paths into images; None where nothing is calibrated, or MuJoCo is not installed."""
    from dit_policy_ros.evaluate.replay_page import View

    if robot.kinematics is None or not any(camera.calibration for camera in robot.cameras.values()):
        return None
    try:
        from dit_policy_ros.sim.kinematics import ModelKinematics

        return View(robot, ModelKinematics(robot.kinematics))
    except ModuleNotFoundError as missing:
        print(f"Without {missing.name} no paths are drawn into the images; pip install 'dit_policy_ros[sim]'.")
        return None
