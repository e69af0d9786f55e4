"""Demonstrations: an expert drives a simulated body, and everything a live graph would carry goes into a bag."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.errors import WorldError
from dit_policy_ros.robot import RobotSpec, load_robot
from dit_policy_ros.sim.body import CAMERA_PERIOD_NS, CONTROL_NS, AlohaBody
from dit_policy_ros.sim.expert import REACTION_STEPS, Plan, plan_episode
from dit_policy_ros.types import Trajectory

COMMAND_EVERY_STEPS = 10
COMMAND_AHEAD_STEPS = 25
LATE_STEPS = (REACTION_STEPS, 41)
"""From an event to the answer, first and one past the last: a policy hears of it as late when its systems are slow."""
HOLD_STEPS = 30
"""How long a recording goes on after the expert is done."""
_NOISE_CORRELATION = 0.9
_NOISE_LEVELS_RAD = {"aloha_insertion": (0.0, 0.005, 0.01)}
_DEFAULT_NOISE_LEVELS_RAD = (0.0, 0.01, 0.02)
_CAREFUL_SHARE = 0.9
"""Share of the disturbance taken away where the plan says to be careful."""


@dataclass(frozen=True)
class Outcome:
    """How one recording ended."""

    seed: int
    path: Path
    strict: bool
    """Whether it was a success; failures are not kept."""
    bytes: int


def record_episode(body: AlohaBody, seed: int, path: Path, phrase_set: str = "train", disturb: bool = True) -> Outcome:
    """Records one demonstration, and keeps it if the task was done.

    Args:
        body: is reset to the seed.
        path: folder of the bag to make.
        phrase_set: which sentences to draw the instruction from.
        disturb: push the joints off the plan between the careful moments, while the commands stay those of the plan,
            and answer events late, so that a policy trained on them learns the way back.

    Raises:
        BagError: the folder exists.
    """
    body.rewind()
    body.reset(seed, phrase_set)
    reaction_steps = int(np.random.default_rng([seed, 29]).integers(*LATE_STEPS)) if disturb else REACTION_STEPS
    plan = plan_episode(body, reaction_steps)
    noise = _disturbances(body, plan, seed) if disturb else np.zeros_like(plan.targets)
    cameras = tuple(body.robot.cameras)
    event = body.episode.event
    surprises_ns = (body.start_ns + event.step * CONTROL_NS,) if event else ()
    metadata = EpisodeMetadata(
        instruction=body.instruction,
        world=body.world.name,
        seed=seed,
        surprises_ns=surprises_ns,
        answers_ns=tuple(stamp_ns + reaction_steps * CONTROL_NS for stamp_ns in surprises_ns),
    )
    replan_steps = {step for step, _ in plan.given_up}
    said = None
    with EpisodeWriter(path, body.robot, metadata) as writer:
        for step in range(len(plan.targets) + HOLD_STEPS):
            now_ns = body.now_ns()
            if body.instruction != said:
                said = body.instruction
                writer.instruction(now_ns, said)
            writer.clock(now_ns)
            with_images = (now_ns - body.start_ns) % CAMERA_PERIOD_NS == 0
            writer.observation(body.observe(cameras if with_images else ()))
            if step % COMMAND_EVERY_STEPS == 0 or step in replan_steps:
                for name, trajectory in _commands(body, plan, step):
                    body.command(trajectory)
                    writer.command(name, now_ns, trajectory)
            body.disturbance_rad[:] = noise[step] if step < len(noise) else 0.0
            body.step()
        score = body.score()
        writer.metadata = replace(writer.metadata, outcome="strict" if score.strict else "failure")
        if not score.strict:
            writer.discard()
    size = sum(file.stat().st_size for file in path.glob("*")) if score.strict else 0
    return Outcome(seed, path, score.strict, size)


def record_many(
    world: str, robot: RobotSpec, seeds: range, directory: Path, phrase_set: str, disturb: bool, workers: int
) -> Iterator[Outcome]:
    """Records one bag per seed, ``<directory>/<world>_<seed>``, in parallel; yields outcomes as they come.

    Raises:
        WorldError: a bag of one of these seeds exists already, or no expert can do the world.
    """
    jobs = [(world, robot.name, seed, directory / f"{world}_{seed:06d}", phrase_set, disturb) for seed in seeds]
    taken = [job[3].name for job in jobs if job[3].exists()]
    if taken:
        raise WorldError(f"{directory} already holds {taken[0]}; choose another --seed or --out, or delete it.")
    directory.mkdir(parents=True, exist_ok=True)
    if workers <= 1:
        yield from map(_job, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(_job, jobs)


_bodies: dict[tuple[str, str], AlohaBody] = {}
"""One body per worker process and world, since building a model is slow."""


def _job(job: tuple[str, str, int, Path, str, bool]) -> Outcome:
    world, robot, seed, path, phrase_set, disturb = job
    key = (world, robot)
    if key not in _bodies:
        _bodies[key] = AlohaBody(world, load_robot(robot))
    return record_episode(_bodies[key], seed, path, phrase_set, disturb)


def _commands(body: AlohaBody, plan: Plan, step: int) -> Iterator[tuple[str, Trajectory]]:
    """The coming part of what is intended now, one trajectory per controller; past its end the last target repeats."""
    targets = plan.intended_at(step)
    index = np.minimum(np.arange(step, step + COMMAND_AHEAD_STEPS), len(targets) - 1)
    times_ns = body.now_ns() + CONTROL_NS * np.arange(COMMAND_AHEAD_STEPS, dtype=np.int64)
    names = body.joint_names
    for controller in body.robot.controllers:
        columns = [names.index(joint) for joint in controller.joints]
        yield controller.name, Trajectory(controller.joints, times_ns, targets[np.ix_(index, columns)])


def _disturbances(body: AlohaBody, plan: Plan, seed: int) -> np.ndarray:
    """Slow random pushes on the arm joints, none on the grippers, (steps, 14) [rad]."""
    rng = np.random.default_rng([seed, 13])
    level = rng.choice(_NOISE_LEVELS_RAD.get(body.world.name, _DEFAULT_NOISE_LEVELS_RAD))
    noise = np.zeros_like(plan.targets)
    fresh = rng.normal(0.0, level * np.sqrt(1.0 - _NOISE_CORRELATION**2), noise.shape)
    for step in range(1, len(noise)):
        noise[step] = _NOISE_CORRELATION * noise[step - 1] + fresh[step]
    noise[:, [6, 13]] = 0.0
    return noise * (1.0 - _CAREFUL_SHARE * plan.careful)[:, None]
