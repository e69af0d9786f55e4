"""``bench bags``: how fast recordings are read, and how much memory that takes."""

from __future__ import annotations

import argparse
from pathlib import Path

_FRAMES = 300
_TOGETHER = "side by side"
_SPEED_S, _LEAST_ROUNDS = 4.0, 3
"""Processor time for each camera."""
_STORAGES = ("mcap", "sqlite3")
_HZ, _IMAGE_HZ, _SIZE = 50, 5, (160, 120)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declares the options of ``bench bags``."""
    parser.add_argument("--bag", type=Path, help="bags: read for its speed")
    parser.add_argument("--storage", choices=_STORAGES, help="bags: copy the bag into this storage before it is read")
    parser.add_argument("--robot", default="aloha", help="bags: robot YAML, or a shipped name (default %(default)s)")
    parser.add_argument(
        "--minutes", type=float, nargs="*", default=[], metavar="M", help="bags: lengths to measure the memory of"
    )


def run_bags(args: argparse.Namespace) -> int:
    """Prints a table, and its numbers as JSON in the last line."""
    import json
    import tempfile

    from dit_policy_ros.commands.bench_bag_memory import WORK
    from dit_policy_ros.errors import ConfigError
    from dit_policy_ros.robot import load_robot

    if args.bag is None and not args.minutes:
        raise ConfigError("Nothing to measure: give --bag for the speed of reading, or --minutes for the memory.")
    robot = load_robot(args.robot)
    measured: dict = {"speed": {}, "peak_memory_mb": {}}
    with tempfile.TemporaryDirectory() as folder:
        if args.bag:
            bag = _copy(args.bag, Path(folder) / "copy", args.storage) if args.storage else args.bag
            measured["speed"] = _speed(bag, robot)
    for length in args.minutes:
        with tempfile.TemporaryDirectory() as folder:
            bag = _make_bag(Path(folder) / "long", robot, length)
            size_mb = sum(file.stat().st_size for file in bag.iterdir()) / 1e6
            peaks = {what: round(_peak_memory_mb(what, bag, args.robot, folder), 1) for what in WORK}
        measured["peak_memory_mb"][f"{length:g} min"] = peaks
        shown = ", ".join(f"{what} {peak:.1f} MB" for what, peak in peaks.items())
        print(f"peak memory, {length:g} minutes ({size_mb:.0f} MB): {shown}")
    print(json.dumps(measured))
    return 0


def _speed(bag, robot) -> dict:
    """Reads and decodes the first images of each camera on its own and of all side by side, against decoding alone."""
    from functools import partial
    from itertools import islice

    from dit_policy_ros.data import messages
    from dit_policy_ros.data.bag_reader import decode_message, open_episode
    from dit_policy_ros.data.images import decode_compressed

    episode = open_episode(bag, robot, recover=True)
    found, every = {}, []
    print(f"{'camera':20}{'images':>8}{'decoder [1/s]':>15}{'reading [1/s]':>15}{'share':>8}")
    for camera in robot.cameras:
        topic, msgtype = episode.image_topic(camera)
        stored = [cdr for _, _, cdr in islice(episode.bag.messages([topic]), _FRAMES)]
        if msgtype == messages.COMPRESSED_IMAGE:
            files = [messages.deserialize(cdr, msgtype, topic).data for cdr in stored]
            alone = [partial(decode_compressed, data) for data in files]
        else:
            alone = [partial(decode_message, cdr, msgtype, topic) for cdr in stored]
        found[camera] = _compared(camera, episode, [camera], [alone])
        every.append(alone)
    if len(every) > 1:
        found[_TOGETHER] = _compared(_TOGETHER, episode, list(robot.cameras), every)
    return found


def _compared(name, episode, cameras, alone) -> dict:
    """Returns how fast cameras are read side by side, and how fast the decoder is on the same images."""
    import time
    from itertools import count, islice

    counts = [len(decoders) for decoders in alone]
    best = {"decoder": float("inf"), "reading": float("inf")}
    # Processor time, and the fastest of several rounds in turns: what else runs on the machine only slows down. Both
    # loops hold an image until the next is there, as whoever looks at it does; what memory costs depends on that.
    end = time.process_time() + _SPEED_S
    for k in count():
        if k >= _LEAST_ROUNDS and time.process_time() > end:
            break
        begin = time.process_time()
        for decoders in zip(*(part[: min(counts)] for part in alone), strict=True):
            _ = [decode() for decode in decoders]
        best["decoder"] = min(best["decoder"], time.process_time() - begin)
        begin = time.process_time()
        for _ in zip(*(islice(episode.frames(camera), min(counts)) for camera in cameras), strict=True):
            pass
        best["reading"] = min(best["reading"], time.process_time() - begin)
    images = min(counts) * len(counts)
    share = best["decoder"] / best["reading"]
    rates = {kind: images / duration for kind, duration in best.items()}
    print(f"{name:20}{images:8d}{rates['decoder']:15.0f}{rates['reading']:15.0f}{100 * share:7.0f}%")
    return {"images": images, **{f"{kind}_hz": rate for kind, rate in rates.items()}, "share": share}


def _copy(source, path, storage):
    """Writes a bag once more in another storage, without compression."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    from dit_policy_ros.data import messages
    from dit_policy_ros.data.bag_file import BagFile

    bag, lines = BagFile(source), {}
    known = {topic for topic, msgtype in bag.topics.items() if msgtype in messages.typestore().types}
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        for key, value in bag.custom_data.items():
            writer.set_custom_data(key, value)
        for topic, log_ns, cdr in bag.messages(known):
            if topic not in lines:
                lines[topic] = writer.add_connection(topic, bag.topics[topic], typestore=messages.typestore())
            writer.write(lines[topic], log_ns, cdr)
    return path


def _make_bag(path, robot, minutes):
    """Joint states and commands at 50 Hz, small images of every camera at 5 Hz."""
    import numpy as np

    from dit_policy_ros.data.bag_writer import EpisodeWriter
    from dit_policy_ros.data.images import encode_jpeg
    from dit_policy_ros.types import NS_PER_S, Trajectory

    rows, columns = np.mgrid[0 : _SIZE[1], 0 : _SIZE[0]]
    jpeg = encode_jpeg(np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8))
    period_ns = NS_PER_S // _HZ
    middle = (robot.lower + robot.upper) / 2
    with EpisodeWriter(path, robot) as writer:
        writer.instruction(NS_PER_S, "go on")
        for k in range(int(minutes * 60 * _HZ)):
            now_ns = NS_PER_S + k * period_ns
            writer.joint_state(now_ns, robot.names, middle, middle)
            for controller in robot.controllers:
                indices = [robot.names.index(name) for name in controller.joints]
                sent = Trajectory(controller.joints, np.array([now_ns + period_ns]), middle[None, indices])
                writer.command(controller.name, now_ns, sent)
            if k % (_HZ // _IMAGE_HZ) == 0:
                for camera in robot.cameras:
                    writer.compressed_image(camera, now_ns, jpeg)
    return path


def _peak_memory_mb(what, bag, robot_name, folder) -> float:
    """Does one of ``WORK`` in a fresh process and returns the most it held."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "dit_policy_ros.commands.bench_bag_memory", what, bag, robot_name]
    out = subprocess.run([*map(str, command), f"{folder}/{what}"], capture_output=True, text=True, check=True)
    return int(out.stdout) / 1024.0
