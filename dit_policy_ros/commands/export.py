"""The command ``export``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = """Write recordings as a LeRobotDataset v3.

Joints and commands are sampled at --fps, by default the rate of the joint states; an image is the newest one of its
instant. States and actions keep 32 bits, images go through H.264. The stamps of joints and images are kept in columns
of their own, so `import` gives them back.

Examples:
  python -m dit_policy_ros export bags/run_000 bags/run_001 --robot aloha --out datasets/transfer
  python -m dit_policy_ros export bags --robot my_robot.yaml --fps 25 --camera top --out datasets/transfer
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="bags, or folders of bags")
    parser.add_argument("--robot", required=True, help="robot YAML, or a shipped name")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the new dataset")
    parser.add_argument("--fps", type=int, metavar="N", help="frames per second, a whole number")
    parser.add_argument(
        "--camera", action="append", metavar="NAME", help="camera to write, may come again (default all of the robot)"
    )


def run(args: argparse.Namespace) -> int:
    """Exports, and says how much."""
    import numpy as np
    from tqdm import tqdm

    from dit_policy_ros.data.bag_reader import episodes_of
    from dit_policy_ros.data.dataset import find_bags
    from dit_policy_ros.data.grid_episode import sample_episode
    from dit_policy_ros.data.lerobot_export import export_episodes
    from dit_policy_ros.errors import ConfigError, one_of
    from dit_policy_ros.robot import load_robot

    robot = load_robot(args.robot)
    cameras = tuple(args.camera or robot.cameras)
    for camera in cameras:
        if camera not in robot.cameras:
            raise ConfigError(one_of("Camera", camera, robot.cameras))
    bags = [bag for path in args.bags for bag in (find_bags([path]) if path.is_dir() else [path])]
    fps = args.fps
    if fps is None:
        joints = next(episodes_of(bags[0], robot)).joints
        fps = max(1, round(1e9 / float(np.median(np.diff(joints.times_ns))))) if len(joints.times_ns) > 1 else 1

    def grids(bar):
        for bag in bar:
            for episode in episodes_of(bag, robot):
                yield sample_episode(episode, fps, cameras)

    # Closed before an error is printed, so that this has a line of its own.
    with tqdm(bags, unit="bag") as bar:
        count = export_episodes(args.out, robot.name, fps, grids(bar))
    print(f"Wrote {count} episodes at {fps} frames per second to {args.out}.")
    return 0
