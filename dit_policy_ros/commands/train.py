"""The command ``train``."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = """Train the dual-system policy on recorded bags, and write a policy directory.

Progress is saved every 250 steps; the same command takes it up again after an interruption.

Examples:
  python -m dit_policy_ros train --data data/language data/insertion --stills 8000 --out models/mine --steps 9000
  python -m dit_policy_ros train --data more --start-from models/mine --out models/better --steps 2000
  python -m dit_policy_ros train --data more --stills 6000 aloha_language=24000 --start-from a --only-find --out b
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
        nargs="+",
        default=["0"],
        metavar="N",
        help="rendered scenes of each simulated world in the data, on which the slow system first learns to find what "
        "is asked for, and WORLD=N where it is to be another number (default 0; needs the simulator)",
    )
    parser.add_argument("--start-from", type=Path, metavar="DIR", help="policy directory whose weights to begin with")
    parser.add_argument(
        "--only-find",
        action="store_true",
        help="teach nothing but the slow system, on stills, in all steps; needs --stills and --start-from",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Trains, and says where the policy is."""
    import torch

    from dit_policy_ros.train.recipe import run_recipe

    torch.set_num_threads(args.threads)
    stills = _stills(args.stills)
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
        make_scenes=_scene_maker(stills, cache, args.threads) if any(stills.values()) else None,
        start_from=args.start_from,
        only_find=args.only_find,
    )
    return 0


def _stills(given: list[str]) -> dict[str, int]:
    """Number of stills of each world.

    Raises:
        ConfigError: something else than numbers, or a world without stills.
    """
    from dit_policy_ros.errors import ConfigError, one_of
    from dit_policy_ros.sim.stills import STILL_OBJECTS

    counts = dict.fromkeys(STILL_OBJECTS, 0)
    for entry in given:
        world, _, number = entry.rpartition("=")
        if world and world not in STILL_OBJECTS:
            raise ConfigError(one_of("World of --stills", world, STILL_OBJECTS))
        if not number.isdecimal():
            raise ConfigError(f"--stills takes numbers and WORLD=NUMBER, not {entry!r}.")
        counts.update({world: int(number)} if world else dict.fromkeys(counts, int(number)))
    return counts


def _scene_maker(stills: dict[str, int], cache: Path, workers: int):
    """Renders stills of every simulated world that the recordings are of."""
    from functools import partial

    from dit_policy_ros.sim.stills import STILL_OBJECTS, render_stills
    from dit_policy_ros.train.scenes import Scenes

    def make_scenes(dataset, config) -> list[Scenes]:
        worlds = sorted({episode.metadata.world for episode in dataset.episodes} & set(STILL_OBJECTS))
        wanted = [world for world in worlds if stills[world]]
        kinds = [render_stills(world, config.slow_camera, stills[world], cache, workers=workers) for world in wanted]
        return [
            Scenes(kind.images, tuple(partial(_sentence, task) for task in kind.tasks), kind.places) for kind in kinds
        ]

    return make_scenes


def _rephrase():
    """Draws another sentence for a simulated episode; recordings of real robots keep theirs."""
    from dit_policy_ros.sim.worlds import WORLDS
    from dit_policy_ros.train.phrase import Phrase

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
    from dit_policy_ros.train.phrase import Phrase

    text = phrases.draw(task, "train", int(rng.integers(2**31)))
    return Phrase(text, phrases.TASKS.index(task), phrases.NAMING[task])
