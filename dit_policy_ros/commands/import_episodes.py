"""The command ``import``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = """Turn episodes of other formats into bags: a LeRobotDataset v3, or HDF5 files of ALOHA.

Each episode becomes one rosbag2 folder below --out, with the topics of the robot description. Cameras keep their names
unless --camera says otherwise; those that the robot lacks are left out and named.

Examples:
  python -m dit_policy_ros import datasets/transfer --robot aloha --out bags
  python -m dit_policy_ros import episode_0.hdf5 episode_1.hdf5 --robot aloha --camera cam_high=top --camera \
cam_left_wrist=left_wrist --instruction "hand over the cube" --out bags
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help="dataset folder, or .hdf5 files")
    parser.add_argument("--robot", required=True, help="robot YAML, or a shipped name")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the bags")
    parser.add_argument(
        "--camera", action="append", default=[], metavar="THEIRS=OURS", help="renames a camera, may come again"
    )
    parser.add_argument("--instruction", default="", help="for HDF5 episodes, which have none")
    parser.add_argument(
        "--by-order", action="store_true", help="a dataset without joint names has them in the order of the robot"
    )
    parser.add_argument("--bgr", action="store_true", help="the images of HDF5 episodes hold blue first")


def run(args: argparse.Namespace) -> int:
    """Imports, and names what was left out."""
    from tqdm import tqdm

    from dit_policy_ros.data.grid_episode import write_grid_episode
    from dit_policy_ros.data.metadata import EpisodeMetadata
    from dit_policy_ros.errors import ConfigError
    from dit_policy_ros.robot import load_robot

    robot = load_robot(args.robot)
    renamed = {}
    for entry in args.camera:
        theirs, equals, ours = entry.partition("=")
        if not equals or ours not in robot.cameras:
            known = ", ".join(sorted(robot.cameras)) or "none"
            raise ConfigError(f"--camera {entry} must be THEIRS=OURS, with a camera of the robot: {known}.")
        renamed[theirs] = ours
    count = 0
    # Closed before an error is printed, so that this has a line of its own.
    with tqdm(_episodes(args, robot, renamed), unit="episode") as bar:
        for name, grid in bar:
            metadata = EpisodeMetadata(instruction=grid.instructions[0])
            write_grid_episode(args.out / name, robot, grid, metadata)
            count += 1
    print(f"Wrote {count} bags to {args.out}.")
    return 0


def _episodes(args, robot, renamed):
    """Yields (name of the bag, episode)."""
    from dit_policy_ros.errors import ConfigError

    for source in args.sources:
        if source.suffix in (".hdf5", ".h5"):
            from dit_policy_ros.data.aloha_hdf5 import AlohaFile

            if not args.instruction.strip():
                raise ConfigError("HDF5 episodes have no instruction; give one with --instruction.")
            file = AlohaFile(source)
            cameras = _cameras(file.cameras, robot, renamed, source)
            yield source.stem, file.episode(robot.names, cameras, args.instruction.strip(), args.bgr)
        else:
            from dit_policy_ros.data.lerobot_import import LeRobotFolder

            folder = LeRobotFolder(source, robot.names if args.by_order else ())
            cameras = _cameras(folder.cameras, robot, renamed, source)
            for index in range(len(folder)):
                yield f"{source.resolve().name}_{index:06d}", folder.episode(index, cameras)


def _cameras(theirs, robot, renamed, source):
    """Returns their name to ours, and tells which have no place."""
    cameras = {name: renamed.get(name, name) for name in theirs if renamed.get(name, name) in robot.cameras}
    left = sorted(set(theirs) - set(cameras))
    if left:
        print(f"{source}: camera {', '.join(left)} is left out; the robot has {', '.join(robot.cameras) or 'none'}.")
    return cameras
