"""The command ``evaluate``."""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HELP = """Measure a policy's success in a simulated world, in closed loop under a virtual clock.

The runtime code is that of the live nodes. The slow model's result arrives --context-delay seconds after its
observation, a chunk --action-delay seconds after its own, whatever the machine really needs; the figures are the same
on every machine. Success is reported as `strict` (it holds at the end, the giving hand is clear) and `sticky` (the
environment's largest reward was reached once).

Examples:
  python -m dit_policy_ros evaluate --policy models/demo --world aloha_transfer_cube --episodes 100 --report out
  python -m dit_policy_ros evaluate --policy models/demo --world aloha_language --context-delay 0.5 --report out
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--policy", required=True, help="policy directory, or the name of a shipped one")
    parser.add_argument("--world", required=True, help="simulated task, such as aloha_language")
    parser.add_argument("--episodes", type=int, default=50, help="number of seeds (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1000, help="first seed (default %(default)s)")
    parser.add_argument("--context-delay", type=float, default=0.3, metavar="S", help="default %(default)s s")
    parser.add_argument("--action-delay", type=float, default=0.06, metavar="S", help="default %(default)s s")
    parser.add_argument(
        "--phrases", default="held_out", help="instructions: plain, train or held_out (default %(default)s)"
    )
    parser.add_argument("--robot", default="aloha", help="robot YAML, or a shipped name (default %(default)s)")
    parser.add_argument("--report", type=Path, required=True, help="folder for report.json and index.html")
    parser.add_argument("--workers", type=int, default=2, help="processes (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Evaluates, prints the rates and says where the page is."""
    from tqdm import tqdm

    from dit_policy_ros.errors import ConfigError
    from dit_policy_ros.evaluate.page import write_page
    from dit_policy_ros.evaluate.report import make_report, write_json
    from dit_policy_ros.policy.checkpoint import find_policy, weights_sha256
    from dit_policy_ros.robot import load_robot
    from dit_policy_ros.sim.phrases import check_phrase_set
    from dit_policy_ros.sim.worlds import find_world

    if args.episodes < 1:
        raise ConfigError(f"--episodes is {args.episodes}; it must be at least 1.")
    directory = find_policy(args.policy)
    find_world(args.world)
    load_robot(args.robot)
    check_phrase_set(args.phrases)
    task = _Task(directory, args.world, args.robot, args.context_delay, args.action_delay, args.phrases)
    jobs = [(task, seed) for seed in range(args.seed, args.seed + args.episodes)]
    bar = tqdm(_results(jobs, args.workers), total=len(jobs), unit="episode")
    records, done = [], 0
    for record in bar:
        records.append(record)
        done += record.strict
        bar.set_postfix_str(f"strict {done}/{len(records)}")
    report = make_report(
        tuple(records),
        policy=str(args.policy),
        policy_sha256=weights_sha256(directory),
        delays={"context": args.context_delay, "action": args.action_delay},
        command=_command(args),
    )
    write_json(report, args.report)
    page = write_page(report, args.report)
    for name in ("strict", "sticky"):
        count, interval = getattr(report, name)
        print(f"{name}: {count} of {len(records)} ({interval.lower:.1%} to {interval.upper:.1%}, 95 %)")
    print(f"Page: {page}")
    return 0


@dataclass(frozen=True)
class _Task:
    """What every worker needs to know."""

    policy: Path
    world: str
    robot: str
    context_delay_s: float
    action_delay_s: float
    phrases: str


def _results(jobs: list, workers: int) -> Iterator:
    if workers <= 1:
        yield from map(_job, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(_job, jobs)


_loaded: dict[_Task, tuple] = {}
"""Policy and body of a worker process, made once."""


def _job(job: tuple[_Task, int]):
    import torch

    from dit_policy_ros.evaluate.episode import EpisodeConfig, run_episode
    from dit_policy_ros.evaluate.record import from_result
    from dit_policy_ros.policy.checkpoint import load_policy
    from dit_policy_ros.robot import load_robot
    from dit_policy_ros.sim.body import AlohaBody

    task, seed = job
    if task not in _loaded:
        torch.set_num_threads(1)
        robot = load_robot(task.robot)
        _loaded[task] = (load_policy(task.policy), AlohaBody(task.world, robot), robot)
    policy, body, robot = _loaded[task]
    config = EpisodeConfig(
        steps=body.world.episode_steps,
        context_delay_s=task.context_delay_s,
        action_delay_s=task.action_delay_s,
        phrase_set=task.phrases,
    )
    body.rewind()
    result = run_episode(body, policy, robot, seed, task.world, config)
    return from_result(result, robot.names, body.start_ns, body.world.max_reward)


def _command(args: argparse.Namespace) -> str:
    """The shell command that repeats this run."""
    return (
        f"python -m dit_policy_ros evaluate --policy {args.policy} --world {args.world} --episodes {args.episodes} "
        f"--seed {args.seed} --context-delay {args.context_delay:g} --action-delay {args.action_delay:g} "
        f"--phrases {args.phrases} --robot {args.robot} --report {args.report}"
    )
