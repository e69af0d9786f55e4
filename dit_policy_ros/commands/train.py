"""The command ``train``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = """Train the dual-system policy on recorded bags, and write a policy directory.

Progress is saved every 250 steps; the same command takes it up again after an interruption.

Examples:
  python -m dit_policy_ros train --data data/language data/insertion --stills 8000 --out models/mine --steps 9000
  python -m dit_policy_ros train --data more --start-from models/mine --out models/better --steps 2000
  python -m dit_policy_ros train --data bags --recipe my_recipe.yaml --robot my_robot.yaml --out models/mine
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders with bags; each counts the same")
    parser.add_argument("--weights", type=float, nargs="+", help="how often to draw from each folder, default equal")
    parser.add_argument("--out", type=Path, required=True, help="policy directory to write")
    parser.add_argument("--recipe", default="demo", help="recipe YAML, or a shipped name (default %(default)s)")
    parser.add_argument("--robot", default="aloha", help="robot YAML, or a shipped name (default %(default)s)")
    parser.add_argument("--steps", type=int, default=6000, help="training steps (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default %(default)s)")
    parser.add_argument("--cache", type=Path, help="where decoded frames are kept (default OUT/cache)")
    parser.add_argument(
        "--stills",
        type=int,
        default=0,
        help="rendered scenes of each simulated world in the data, on which the slow system first learns to find what "
        "is asked for (default %(default)s; needs the simulator)",
    )
    parser.add_argument("--start-from", type=Path, metavar="DIR", help="policy directory whose weights to begin with")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Trains, and says where the policy is."""
    import torch

    from dit_policy_ros.train.recipe import run_recipe

    torch.set_num_threads(args.threads)
    cache = args.cache or args.out / "cache"
    run_recipe(
        folders=tuple(args.data),
        weights=tuple(args.weights or [1.0] * len(args.data)),
        out=args.out,
        recipe=args.recipe,
        robot_name=args.robot,
        steps=args.steps,
        seed=args.seed,
        cache=cache,
        device=args.device,
        rephrase=_rephrase(),
        make_scenes=_scene_maker(args.stills, cache, args.threads) if args.stills else None,
        start_from=args.start_from,
    )
    return 0


def _scene_maker(stills: int, cache: Path, workers: int):
    """Renders stills of every simulated world that the recordings are of."""
    from functools import partial

    from dit_policy_ros.sim.stills import STILL_OBJECTS, render_stills
    from dit_policy_ros.train.scenes import Scenes

    def make_scenes(dataset, config) -> list[Scenes]:
        worlds = sorted({episode.metadata.world for episode in dataset.episodes} & set(STILL_OBJECTS))
        kinds = [render_stills(world, config.slow_camera, stills, cache, workers=workers) for world in worlds]
        return [
            Scenes(kind.images, tuple(partial(_sentence, task) for task in kind.tasks), kind.places) for kind in kinds
        ]

    return make_scenes


def _rephrase():
    """Draws another sentence for a simulated episode; recordings of real robots keep theirs."""
    from dit_policy_ros.sim.worlds import WORLDS
    from dit_policy_ros.train.samples import Phrase

    tasks: dict[tuple[str, int], tuple[str, ...]] = {}

    def rephrase(episode, index, rng) -> Phrase:
        metadata = episode.metadata
        if metadata.world not in WORLDS or metadata.seed is None:
            return Phrase(episode.said(index))
        key = (metadata.world, metadata.seed)
        if key not in tasks:
            tasks[key] = WORLDS[metadata.world].tasks(metadata.seed)
        return _sentence(tasks[key][index], rng)

    return rephrase


def _sentence(task: str, rng):
    """Draws a sentence that asks for a simulated task."""
    from dit_policy_ros.sim import phrases
    from dit_policy_ros.train.samples import Phrase

    return Phrase(phrases.draw(task, "train", int(rng.integers(2**31))), phrases.TASKS.index(task))
