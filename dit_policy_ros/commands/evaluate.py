"""The command ``evaluate``."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path

HELP = """Measure a policy's success in a simulated world, in closed loop under a virtual clock.

The runtime code is that of the live nodes. The slow model's result arrives --context-delay seconds after its
observation, a chunk --action-delay seconds after its own, whatever the machine really needs; the figures are the same
on every machine. Success is reported as `strict` (it holds at the end, the giving hand is clear) and `sticky` (the
environment's largest reward was reached once).

With several methods (--method a,b or all) every one of them is measured at these delays and compared on the same
seeds; with --sweep each of them over context delays from 0 to 1 s and over action delays from 0 to 0.3 s. Every
finished point is a file in REPORT/points, known by weights, code, versions, world, seeds, delays and options: a run
that was interrupted goes on where it was, and page and table.md are drawn anew after each point.

Examples:
  python -m dit_policy_ros evaluate --policy models/demo --world aloha_transfer_cube --episodes 100 --report out
  python -m dit_policy_ros evaluate --policy models/demo --world aloha_language --context-delay 0.5 --report out
  python -m dit_policy_ros evaluate --policy models/demo --world aloha_transfer_cube --method all --report methods
  python -m dit_policy_ros evaluate --policy models/demo --world aloha_nudged --sweep context --report curves
  python -m dit_policy_ros evaluate --policy models/demo --world aloha_language --delays trace:bag --report out
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
        "--delays",
        default="constant",
        help="how they vary: constant, jitter, spikes, stall, or trace:PATH with a recorded demo bag or a JSON file "
        "(default %(default)s)",
    )
    parser.add_argument("--method", default="", help="continuity methods, separated by commas, or all")
    parser.add_argument(
        "--sweep",
        nargs="?",
        const="both",
        choices=("both", "context", "action"),
        help="measure over a range of delays and draw the curves: of both systems, or of one",
    )
    parser.add_argument(
        "--horizon", type=float, metavar="S", help="time from one chunk to the next (default: as the policy says)"
    )
    parser.add_argument("--encode-period", type=float, metavar="S", help="least time between two encodes")
    parser.add_argument(
        "--max-context-age",
        type=float,
        metavar="S",
        help="older contexts stop the arms (default: as the executor's, 2 s); must exceed twice a long --context-delay",
    )
    parser.add_argument(
        "--phrases", default="held_out", help="instructions: plain, train or held_out (default %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="where the policy runs: cpu, cuda or cuda:1 (default cpu)")
    parser.add_argument("--robot", default="aloha", help="robot YAML, or a shipped name (default %(default)s)")
    parser.add_argument("--report", type=Path, required=True, help="folder for report.json and index.html")
    parser.add_argument("--workers", type=int, default=2, help="processes (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Evaluates, prints the rates and says where the page is."""
    from dit_policy_ros.commands.episodes import Task

    methods = _checked(args)
    task = Task(
        policy=_directory(args),
        world=args.world,
        robot=args.robot,
        phrases=args.phrases,
        context_delay_s=args.context_delay,
        action_delay_s=args.action_delay,
        method=methods[0],
        pattern=args.delays.partition(":")[0],
        trace=_trace(args),
        horizon_s=args.horizon,
        encode_period_s=args.encode_period,
        device=args.device,
        max_context_age_s=args.max_context_age,
    )
    if args.sweep or len(methods) > 1:
        return _compare(args, task, methods)
    return _measure(args, task)


def _checked(args: argparse.Namespace) -> tuple[str, ...]:
    """Returns the methods to measure; refuses what cannot be run before any work is done."""
    from dit_policy_ros.errors import ConfigError
    from dit_policy_ros.evaluate.delays import check_pattern
    from dit_policy_ros.policy.checkpoint import load_policy
    from dit_policy_ros.policy.continuity.methods import admitted, bare, continued
    from dit_policy_ros.policy.device import find_device
    from dit_policy_ros.robot import load_robot
    from dit_policy_ros.runtime.executor_config import ExecutorConfig
    from dit_policy_ros.sim.phrases import check_phrase_set
    from dit_policy_ros.sim.worlds import find_world

    if args.episodes < 1:
        raise ConfigError(f"--episodes is {args.episodes}; it must be at least 1.")
    for name in ("context_delay", "action_delay", "horizon", "encode_period", "max_context_age"):
        value = getattr(args, name)
        if value is not None and not 0.0 <= value < float("inf"):
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be finite and not negative.")
    if not args.delays.startswith("trace:"):
        check_pattern(args.delays)
    directory = _directory(args)
    find_world(args.world)
    load_robot(args.robot)
    find_device(args.device)
    if args.max_context_age is not None:
        ExecutorConfig(max_context_age_s=args.max_context_age)
    check_phrase_set(args.phrases)
    if not args.method:
        return ("",)
    policy = load_policy(directory)
    inner = bare(policy)
    if args.method == "all":
        return admitted(inner)
    methods = tuple(dict.fromkeys(name.strip() for name in args.method.split(",")))
    for name in methods:
        continued(inner, name)
    return methods


def _directory(args: argparse.Namespace) -> Path:
    from dit_policy_ros.policy.checkpoint import find_policy

    return find_policy(args.policy)


def _trace(args: argparse.Namespace) -> tuple:
    """Delays of a recorded demo episode, or of a file that maps 'context' and 'action' to seconds."""
    from dit_policy_ros.commands.episodes import frozen_trace
    from dit_policy_ros.data.bag_reader import open_episode
    from dit_policy_ros.errors import ConfigError
    from dit_policy_ros.evaluate.delays import check_trace
    from dit_policy_ros.evaluate.recorded import trace_of
    from dit_policy_ros.robot import load_robot

    kind, _, path = args.delays.partition(":")
    if kind != "trace":
        return ()
    if Path(path).is_dir():
        return frozen_trace(check_trace(trace_of(open_episode(Path(path), load_robot(args.robot)))))
    try:
        trace = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ConfigError(f"No trace at '{path}' ({problem}); give a demo bag or a JSON file.") from None
    return frozen_trace(check_trace(trace))


def _measure(args: argparse.Namespace, task) -> int:
    """Evaluates one method at one pair of delays."""
    from tqdm import tqdm

    from dit_policy_ros.commands.episodes import run_episodes
    from dit_policy_ros.evaluate.page import write_page
    from dit_policy_ros.evaluate.report import make_report, write_json
    from dit_policy_ros.policy.checkpoint import weights_sha256

    jobs = [(task, seed) for seed in range(args.seed, args.seed + args.episodes)]
    bar = tqdm(run_episodes(jobs, args.workers), total=len(jobs), unit="episode")
    records, done = [], 0
    for _, record in bar:
        records.append(record)
        done += record.strict
        bar.set_postfix_str(f"strict {done}/{len(records)}")
    report = make_report(
        tuple(records),
        policy=str(args.policy),
        policy_sha256=weights_sha256(task.policy),
        delays={"context": args.context_delay, "action": args.action_delay},
        command=_command(args),
        method=task.method,
        pattern=task.pattern,
    )
    write_json(report, args.report)
    page = write_page(report, args.report)
    for name in ("strict", "sticky"):
        count, interval = getattr(report, name)
        print(f"{name}: {count} of {len(records)} ({interval.lower:.1%} to {interval.upper:.1%}, 95 %)")
    if report.context_wait is not None and report.context_wait.advice():
        print(report.context_wait.advice())
    print(f"Page: {page}")
    return 0


def _compare(args: argparse.Namespace, task, methods: tuple[str, ...]) -> int:
    """Evaluates many conditions; keeps each point and draws the report anew as soon as it is finished."""
    from tqdm import tqdm

    from dit_policy_ros.commands.episodes import run_episodes
    from dit_policy_ros.evaluate.sweep import Condition, curves, point_of
    from dit_policy_ros.policy.checkpoint import weights_sha256

    at = Condition("", task.context_delay_s, task.action_delay_s, task.pattern)
    conditions = curves(methods, at, args.sweep) if args.sweep else tuple(replace(at, method=name) for name in methods)
    seeds, digest = range(args.seed, args.seed + args.episodes), weights_sha256(task.policy)
    files = _point_files(args, task, digest)
    known = {condition: files.load(condition) for condition in conditions}
    points = {condition: point for condition, point in known.items() if point is not None}
    print(_found(files, points, conditions))
    if points:
        _draw(args, digest, [points[known] for known in conditions if known in points])
    missing = [condition for condition in conditions if condition not in points]
    jobs = [(_under(task, condition), seed) for condition in missing for seed in seeds]
    of_task: dict = {_under(task, condition): condition for condition in missing}
    records: dict = {condition: [] for condition in missing}
    for done_task, record in tqdm(run_episodes(jobs, args.workers), total=len(jobs), unit="episode"):
        condition = of_task[done_task]
        records[condition].append(record)
        if len(records[condition]) < len(seeds):
            continue
        point = points[condition] = point_of(condition, records.pop(condition))
        files.save(point)
        _draw(args, digest, [points[known] for known in conditions if known in points])
        tqdm.write(_told(point))
    print(f"Page: {args.report / 'index.html'}\nTable: {args.report / 'table.md'}")
    return 0


def _draw(args: argparse.Namespace, digest: str, points: list) -> None:
    """Writes ``report.json``, the page and the table of the points that are finished."""
    from dit_policy_ros.evaluate.report import now, versions_in_use
    from dit_policy_ros.evaluate.sweep import Sweep, write_json
    from dit_policy_ros.evaluate.sweep_page import write_sweep_page
    from dit_policy_ros.evaluate.sweep_table import write_table

    sweep = Sweep(args.world, str(args.policy), digest, tuple(points), _command(args), now(), versions_in_use())
    write_json(sweep, args.report)
    write_sweep_page(sweep, args.report)
    write_table(sweep, args.report)


def _told(point) -> str:
    """A finished point in a line, and what a limit cost in another."""
    from dit_policy_ros.evaluate.sweep_page import OWN

    condition, interval = point.condition, point.interval
    advice = point.metrics["context_wait"].get("advice")
    return (
        f"{condition.method or OWN}, context {condition.context_delay_s:g} s, action {condition.action_delay_s:g} "
        f"s, {condition.pattern}: strict {point.successes} of {len(point.seeds)} "
        f"({interval.lower:.1%} to {interval.upper:.1%}, 95 %)" + (f"\n  {advice}" if advice else "")
    )


def _under(task, condition):
    return replace(
        task,
        method=condition.method,
        context_delay_s=condition.context_delay_s,
        action_delay_s=condition.action_delay_s,
    )


def _point_files(args: argparse.Namespace, task, digest: str):
    """Finished points, known by everything that decides a result beside method and delays."""
    from dit_policy_ros.evaluate.report import versions_in_use
    from dit_policy_ros.evaluate.sweep_points import PointFiles, folder_sha256, running_code_sha256
    from dit_policy_ros.resources import find_config

    setting = {
        "world": task.world,
        "phrases": task.phrases,
        "seeds": [args.seed, args.episodes],
        "weights_sha256": digest,
        "policy_sha256": folder_sha256(task.policy),
        "robot_sha256": hashlib.sha256(find_config("robots", task.robot).read_bytes()).hexdigest(),
        "code_sha256": running_code_sha256(),
        "versions": versions_in_use(),
        "horizon_s": task.horizon_s,
        "encode_period_s": task.encode_period_s,
        "max_context_age_s": task.max_context_age_s,
        "device": task.device,
        "trace": [[system, list(values)] for system, values in task.trace],
    }
    return PointFiles(args.report, setting)


def _found(files, points, conditions) -> str:
    others = files.others(conditions)
    unused = f" {others} of other code, weights, seeds or options lie there too and are not used." if others else ""
    return f"{len(points)} of {len(conditions)} points are finished, in {files.folder}.{unused}"


def _command(args: argparse.Namespace) -> str:
    """The shell command that repeats this run."""
    changed = [
        *([f"--delays {args.delays}"] if args.delays != "constant" else []),
        *([f"--method {args.method}"] if args.method else []),
        *([f"--sweep {args.sweep}"] if args.sweep else []),
        *([f"--horizon {args.horizon:g}"] if args.horizon is not None else []),
        *([f"--max-context-age {args.max_context_age:g}"] if args.max_context_age is not None else []),
        *([f"--device {args.device}"] if args.device != "cpu" else []),
        *([f"--encode-period {args.encode_period:g}"] if args.encode_period is not None else []),
    ]
    return " ".join(
        (
            f"python -m dit_policy_ros evaluate --policy {args.policy} --world {args.world} --episodes {args.episodes}",
            f"--seed {args.seed} --context-delay {args.context_delay:g} --action-delay {args.action_delay:g}",
            *changed,
            f"--phrases {args.phrases} --robot {args.robot} --report {args.report}",
        )
    )
