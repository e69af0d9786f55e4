"""The command ``inspect``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = """Look into a recording: what is in it, what is missing, and whether it fits a robot.

Lists rates, gaps, dropped messages, clock skew, image sizes and joint ranges of every topic. With --robot the bag is
held against that description, and the exit status is 1 where it cannot be used. Without, a robot description is
proposed from the bag and printed, with FILL_IN where a person must write a value. With --report a page with thumbnails
is written.

Examples:
  python -m dit_policy_ros inspect bags/run_000 --robot aloha --report out
  python -m dit_policy_ros inspect bags/run_000 --report proposal
"""

EXIT_UNUSABLE = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("bag", type=Path, metavar="BAG", help="rosbag2 folder, or a .mcap or .db3 file")
    parser.add_argument("--robot", help="robot YAML, or a shipped name, to hold the bag against")
    parser.add_argument("--report", type=Path, metavar="DIR", help="folder for the page, and for a proposed robot.yaml")


def run(args: argparse.Namespace) -> int:
    """Inspects, prints, and writes the page."""
    import sys

    from dit_policy_ros.data.inspection import inspect_bag
    from dit_policy_ros.data.proposal import propose_robot
    from dit_policy_ros.data.thumbnails import thumbnails
    from dit_policy_ros.evaluate.document import write_whole
    from dit_policy_ros.evaluate.inspection_page import write_inspection
    from dit_policy_ros.robot import load_robot

    robot = load_robot(args.robot) if args.robot else None
    inspection = inspect_bag(args.bag, robot)
    # What is proposed can be redirected into a file, so the rest does not go with it.
    out = sys.stdout if robot else sys.stderr
    print(_table(inspection), file=out)
    proposal = "" if robot else propose_robot(inspection)
    print(proposal, end="")
    if args.report:
        if proposal:
            write_whole(args.report / "robot.yaml", proposal)
            print(f"Robot: {args.report / 'robot.yaml'}", file=out)
        page = write_inspection(inspection, thumbnails(inspection), robot, args.report, proposal)
        print(f"Page: {page}", file=out)
    unusable = robot is not None and any(finding.severity == "error" for finding in inspection.findings)
    return EXIT_UNUSABLE if unusable else 0


def _table(inspection) -> str:
    width = max((len(topic) for topic in inspection.streams), default=5)
    lines = [f"{inspection.bag.path}: {inspection.duration_s:.2f} s"]
    lines.append(f"  {'topic':{width}} {'messages':>8} {'Hz':>8} {'longest':>8} {'dropped':>8}  type")
    for topic, stream in inspection.streams.items():
        rate = f"{stream.rate_hz:8.2f} {stream.longest_s:7.3f}s" if stream.count > 1 else " " * 17
        kinds = ", ".join(kind for kind, _ in stream.sizes)
        lines.append(
            f"  {topic:{width}} {stream.count:8d} {rate} {stream.dropped:8d}  {stream.msgtype} {kinds}".rstrip()
        )
    lines += [f"{finding.severity}: {finding.subject}: {finding.text}" for finding in inspection.findings]
    return "\n".join(lines)
