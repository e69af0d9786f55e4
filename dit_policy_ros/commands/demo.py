"""The command ``demo``."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

HELP = """Watch the whole graph drive two simulated arms over real ROS 2 topics.

Starts simulator, slow system, fast system, executor and recorder, each in a process of its own, runs some episodes
in real time, and writes a video and an MCAP bag of each and a page about all.

Examples:
  python -m dit_policy_ros demo
  python -m dit_policy_ros demo --world aloha_insertion --episodes 10 --seed 2000 --out insertion_demo
"""

_WARM_UP_SEED = 2**31 - 1
"""Of the episode that runs while the models load; no bag of it is kept."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--world", default="aloha_language", help="simulated task (default %(default)s)")
    parser.add_argument("--episodes", type=int, default=3, help="how many to run (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1000, help="first seed (default %(default)s)")
    parser.add_argument("--policy", default="demo", help="policy directory, or a shipped name (default %(default)s)")
    parser.add_argument("--device", default="cpu", help="where the policy runs: cpu, cuda or cuda:1 (default cpu)")
    parser.add_argument("--robot", default="aloha", help="robot YAML, or a shipped name (default %(default)s)")
    parser.add_argument(
        "--phrases", default="held_out", help="instructions: plain, train or held_out (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder (default %(default)s)")
    parser.add_argument("--domain", type=int, help="ROS domain id (default: ROS_DOMAIN_ID)")


def run(args: argparse.Namespace) -> int:
    """Runs the graph, then makes videos and the page."""
    from dit_policy_ros.errors import ConfigError
    from dit_policy_ros.policy.checkpoint import find_policy
    from dit_policy_ros.robot import load_robot
    from dit_policy_ros.ros.graph import load_graph
    from dit_policy_ros.sim.phrases import check_phrase_set
    from dit_policy_ros.sim.worlds import find_world

    if args.episodes < 1:
        raise ConfigError(f"--episodes is {args.episodes}; it must be at least 1.")
    find_world(args.world)
    check_phrase_set(args.phrases)
    load_robot(args.robot)
    policy = find_policy(args.policy).resolve()
    bags = (args.out / "bags").resolve()
    if bags.exists():
        raise ConfigError(f"{args.out} holds an earlier demo; delete it, or choose another --out.")
    nodes = load_graph("demo").resolve(
        {
            "world": args.world,
            "seed": _WARM_UP_SEED,
            "phrase_set": args.phrases,
            "policy": str(policy),
            "device": args.device,
            "robot": args.robot,
            "bag_directory": str(bags),
        }
    )
    _run_episodes(args, nodes)
    for bag in bags.glob(f"*_{_WARM_UP_SEED}_*"):
        shutil.rmtree(bag)
    _report(args, policy, bags)
    return 0


def _run_episodes(args: argparse.Namespace, nodes) -> None:
    from dit_policy_ros.errors import ConfigError
    from dit_policy_ros.ros.episode_driver import EpisodeDriver
    from dit_policy_ros.ros.launcher import Launcher

    print(f"Starting {', '.join(node.name for node in nodes)}; logs are in {args.out / 'logs'}.", flush=True)
    with Launcher(nodes, args.out.resolve() / "logs", tell=print, domain_id=args.domain) as launcher:

        def check() -> None:
            if launcher.failure:
                raise ConfigError(launcher.failure)

        with EpisodeDriver(domain_id=args.domain) as driver:
            for number, seed in enumerate(range(args.seed, args.seed + args.episodes), start=1):
                state = driver.run(seed, check)
                outcome = "done" if state.strict else "reached, but not kept" if state.sticky else "not done"
                print(f"{number}/{args.episodes} seed {seed}: '{state.instruction}': {outcome}", flush=True)


def _report(args: argparse.Namespace, policy: Path, bags: Path) -> None:
    from tqdm import tqdm

    from dit_policy_ros.data.bag_reader import open_episode
    from dit_policy_ros.data.dataset import find_bags
    from dit_policy_ros.evaluate.page import write_page
    from dit_policy_ros.evaluate.recorded import from_bag
    from dit_policy_ros.evaluate.report import make_report, write_json
    from dit_policy_ros.evaluate.video import write_episode_video
    from dit_policy_ros.policy.checkpoint import weights_sha256
    from dit_policy_ros.robot import load_robot

    robot, records = load_robot(args.robot), []
    for bag in tqdm(find_bags([bags]), desc="Making videos", unit="episode"):
        episode = open_episode(bag, robot)
        video = f"videos/{bag.name}.mp4"
        (args.out / "videos").mkdir(exist_ok=True)
        write_episode_video(episode, args.out / video)
        records.append(from_bag(episode, video, f"bags/{bag.name}"))
    command = (
        f"python -m dit_policy_ros demo --world {args.world} --episodes {args.episodes} --seed {args.seed} "
        f"--policy {args.policy} --robot {args.robot} --phrases {args.phrases} "
        + (f"--device {args.device} " if args.device != "cpu" else "")
        + f"--out {args.out}"
    )
    report = make_report(tuple(records), str(args.policy), weights_sha256(policy), {}, command)
    write_json(report, args.out)
    page = write_page(report, args.out)
    done, interval = report.strict
    print(f"Done: {done} of {len(records)} ({interval.lower:.0%} to {interval.upper:.0%}, 95 %).")
    print(f"Videos: {args.out / 'videos'}\nBags:   {args.out / 'bags'} (open them in Foxglove)\nPage:   {page}")
