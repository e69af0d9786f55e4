"""From folders of bags to a policy directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dit_policy_ros import __version__
from dit_policy_ros.data.dataset import Dataset, load_dataset
from dit_policy_ros.data.episode_cache import CacheConfig
from dit_policy_ros.data.running_statistics import Statistics
from dit_policy_ros.errors import CheckpointError, ConfigError
from dit_policy_ros.policy.checkpoint import load_policy, save_dual_policy
from dit_policy_ros.policy.dual_policy import DualPolicy, DualPolicyConfig, Range
from dit_policy_ros.robot import RobotSpec, load_robot
from dit_policy_ros.train.config import TrainConfig, load_train_config
from dit_policy_ros.train.curriculum import Curriculum
from dit_policy_ros.train.phrase import Phrase
from dit_policy_ros.train.run_state import RunState
from dit_policy_ros.train.samples import BatchSource, Rephrase
from dit_policy_ros.train.scenes import Scenes, SceneSource
from dit_policy_ros.train.trainer import Progress, averaged_network, start_run, train

_SENTENCES = 100
"""Of each thing to ask for: how a policy to begin with reads them tells what its eye and System 1 know it by."""
_NARROWEST = 0.02
"""A channel that hardly moves is not stretched beyond this range, in its own unit."""


def run_recipe(
    folders: tuple[Path, ...],
    weights: tuple[float, ...],
    out: Path,
    recipe: str | Path,
    robot_name: str | Path,
    steps: int,
    seed: int,
    cache: Path,
    device: str,
    rephrase: Rephrase | None,
    on_progress: Callable[[Progress], None] | None = None,
    make_scenes: Callable[[Dataset, TrainConfig], Sequence[Scenes]] | None = None,
    start_from: Path | None = None,
    only_find: bool = False,
) -> None:
    """Trains a policy and writes it to ``out``; goes on where an earlier call stopped.

    Args:
        start_from: a policy directory whose weights and ranges to begin with; its System 2 knows where things are, so
            the part of the run that teaches this alone is left out.
        only_find: teach nothing but this, in all steps; what System 1 was taught stays as ``start_from`` has it.
        make_scenes: gives scenes like those of the recordings, for System 2 to learn to find things in; without any
            that part of the run is left out.

    Raises:
        ConfigError: the recipe is malformed or does not fit the robot, or there is nothing to find with ``only_find``.
        BagError: a bag cannot be used.
        CheckpointError: ``out`` holds the state of another run, or ``start_from`` is no policy of this recipe.
    """
    if len(weights) != len(folders):
        raise ConfigError(f"{len(weights)} weights for {len(folders)} folders; give one for each, or none.")
    config, robot = load_train_config(recipe), load_robot(robot_name)
    if config.network.joints != len(robot.names):
        raise ConfigError(f"The recipe has {config.network.joints} joints, robot {robot.name} has {len(robot.names)}.")
    views = {camera.name: camera for camera in (config.slow_camera, *config.fast_cameras)}
    dataset = load_dataset(folders, robot, CacheConfig(views), cache, workers=os.cpu_count() or 1)
    states, actions = (_range(summary) for summary in dataset.statistics())
    shares = _shares(dataset, folders, weights)
    scenes = tuple(make_scenes(dataset, config)) if make_scenes else ()
    told = {kind.places.shape[-1] for kind in scenes} - {config.network.places}
    if told:
        raise ConfigError(f"Scenes tell {min(told)} numbers, the recipe's network {config.network.places} places.")
    config = _parts(config, bool(scenes), start_from is not None, steps if only_find else None)
    state = start_run(config, seed)
    if start_from is not None:
        states, actions = _begin_with(state, start_from, config, robot)
        state.objective.mean_as_read(_said(dataset, scenes, rephrase))
    if only_find:
        state.objective.hold_unanswered()
    if state.load(out / "training"):
        print(f"Going on at step {state.step}.")
    bar = tqdm(total=steps, initial=state.step, unit="step", desc="Training")

    def report(progress: Progress) -> None:
        losses = (f"{name} {value:.4f}" for name, value in vars(progress).items() if name != "step")
        bar.set_postfix_str(" ".join(losses), refresh=False)
        bar.update(progress.step - bar.n)
        if on_progress is not None:
            on_progress(progress)

    def make_curriculum(lesson_seed: int, step: int) -> Curriculum:
        source = BatchSource(dataset, config, states, actions, _grippers(robot), shares, rephrase, lesson_seed)
        return Curriculum(source, SceneSource(scenes, config, lesson_seed) if scenes else None, config, step)

    train(state, config, make_curriculum, steps, seed, out / "training", report, device)
    bar.close()
    policy = DualPolicyConfig(robot.names, config.slow_camera, config.fast_cameras, states, actions, config.network)
    notes = _notes(dataset, sum(len(kind.images) for kind in scenes), config, steps, seed, state.seconds)
    save_dual_policy(out, policy, averaged_network(state), notes)
    print(f"Wrote the policy to {out}. Try it: python -m dit_policy_ros evaluate --policy {out} --help")


def _parts(config: TrainConfig, has_scenes: bool, begins_with: bool, only_find_steps: int | None) -> TrainConfig:
    """Which parts a run has, as a recipe."""
    if only_find_steps is not None:
        if not (has_scenes and begins_with):
            raise ConfigError("To teach only finding, give scenes and a policy to begin with (--stills, --start-from).")
        return replace(config, locate_steps=only_find_steps)
    if not has_scenes:
        config = replace(config, scenes=0, find_while_acting=config.find_while_acting or not begins_with)
    return replace(config, locate_steps=0) if begins_with or not has_scenes else config


def _said(dataset: Dataset, scenes: Sequence[Scenes], rephrase: Rephrase | None) -> list[Phrase]:
    """Sentences of the kinds that a run teaches."""
    rng = np.random.default_rng(5)
    said = [ask(rng) for kind in scenes for ask in kind.ask for _ in range(_SENTENCES)]
    return said + ([rephrase(episode, 0, rng) for episode in dataset.episodes] if rephrase else [])


def _begin_with(state: RunState, start_from: Path, config: TrainConfig, robot: RobotSpec) -> tuple[Range, Range]:
    """Gives the run the weights of a policy; returns the ranges of its states and actions."""
    other = load_policy(start_from)
    if not isinstance(other, DualPolicy):
        raise CheckpointError(f"{start_from} is no dual-system policy; --start-from needs one that `train` wrote.")
    for name, mine, theirs in (
        ("sizes", config.network, other.config.network),
        ("joints", robot.names, other.config.joint_names),
        ("cameras", (config.slow_camera, *config.fast_cameras), (other.config.slow_camera, *other.config.fast_cameras)),
    ):
        if mine != theirs:
            raise CheckpointError(f"{start_from} has other {name} than this recipe: {theirs}, not {mine}.")
    state.objective.network.load_state_dict(other.network.state_dict())
    state.average = {name: value.detach().clone() for name, value in other.network.state_dict().items()}
    return other.config.states, other.config.actions


def _range(summary: Statistics) -> Range:
    middle = (summary.min + summary.max) / 2
    half = np.maximum(summary.max - summary.min, _NARROWEST) / 2
    return Range((middle - half).round(6), (middle + half).round(6))


def _shares(dataset: Dataset, folders: tuple[Path, ...], weights: tuple[float, ...]) -> np.ndarray:
    """Each folder is drawn by its weight, and its episodes by their length."""
    shares = np.zeros(len(dataset.episodes))
    lengths = np.array([len(episode.targets) for episode in dataset.episodes], dtype=float)
    for folder, weight in zip(folders, weights, strict=True):
        inside = np.array([episode.bag.resolve().is_relative_to(folder.resolve()) for episode in dataset.episodes])
        shares += weight * inside * lengths / lengths[inside].sum()
    return shares / shares.sum()


def _grippers(robot: RobotSpec) -> dict[int, tuple[int, ...]]:
    """Column of each gripper to all columns of its arm."""
    grippers = {}
    for column, joint in enumerate(robot.joints):
        if joint.slot.endswith("gripper_open"):
            grippers[column] = tuple(i for i, other in enumerate(robot.joints) if other.arm == joint.arm)
    return grippers


def _notes(dataset: Dataset, scenes: int, config: TrainConfig, steps: int, seed: int, seconds: float) -> dict:
    return {
        "package_version": __version__,
        "episodes": len(dataset.episodes),
        "scenes": scenes,
        "steps": steps,
        "seed": seed,
        "training_minutes": round(seconds / 60.0, 1),
        "batch": config.batch,
        "flow_samples": config.flow_samples,
    }
