"""The command ``play``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = """Play a bag into the ROS graph, as `ros2 bag play` does, where that is not installed.

Messages are published as they were recorded, at their own pace. With --clock the time of recording is on /clock, for
nodes with use_sim_time. With --robot only what a policy takes is played: cameras, joints and the instruction, so that
live nodes answer to it and the recorded commands do not move anything.

Examples:
  python -m dit_policy_ros play bags/run_000 --clock
  python -m dit_policy_ros play bags/run_000 --clock --robot aloha --rate 0.5
  python -m dit_policy_ros play bags/long_run --clock --robot my_robot.yaml --episode 3
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("bag", type=Path, metavar="BAG", help="rosbag2 folder, or a .mcap or .db3 file")
    parser.add_argument("--clock", action="store_true", help="publish the time of recording on /clock")
    parser.add_argument("--robot", help="robot YAML, or a shipped name: play only what a policy takes of it")
    parser.add_argument("--topic", action="append", metavar="NAME", help="play only this one, may come again")
    parser.add_argument("--episode", type=int, metavar="N", help="which one, from 0, where the bag holds several")
    parser.add_argument("--rate", type=float, default=1.0, help="seconds of the bag in a second (default %(default)s)")
    parser.add_argument(
        "--delay", type=float, default=1.0, metavar="S", help="before the first message (default %(default)s s)"
    )


def run(args: argparse.Namespace) -> int:
    """Plays to the end."""
    from dit_policy_ros.data.bag_file import BagFile
    from dit_policy_ros.data.bag_reader import open_episode
    from dit_policy_ros.errors import ConfigError
    from dit_policy_ros.robot import load_robot
    from dit_policy_ros.ros.player import inputs_of, play_bag

    if args.rate <= 0.0 or args.delay < 0.0:
        raise ConfigError("--rate must be above zero, and --delay cannot be negative.")
    if args.episode is not None and not args.robot:
        raise ConfigError("--episode needs --robot, whose description says where episodes begin.")
    robot = load_robot(args.robot) if args.robot else None
    bag = BagFile(args.bag, recover=True)
    if args.episode is not None:
        bag = open_episode(args.bag, robot, recover=True, index=args.episode).bag
    topics = None if robot is None and not args.topic else {*(args.topic or ()), *(inputs_of(robot) if robot else ())}
    count = play_bag(bag, topics, args.clock, args.rate, args.delay)
    if bag.lost:
        print(f"damaged: {bag.lost}.")
    print(f"Published {count} messages.")
    return 0
