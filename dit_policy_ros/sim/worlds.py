"""The simulated tasks: what stands on the table, what is asked, and when it counts as done.

``aloha_transfer_cube`` and ``aloha_insertion`` are gym-aloha's own, sampled and scored as there, so that published
numbers compare. ``aloha_language`` puts three cubes on the same table and names one of them. In ``aloha_nudged`` and
``aloha_switch`` something changes on the way to the grasp: the one cube is displaced, or another one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import mujoco
import numpy as np
from gym_aloha.utils import sample_box_pose, sample_insertion_pose

from dit_policy_ros.errors import WorldError, one_of
from dit_policy_ros.sim import phrases, scene
from dit_policy_ros.sim.variation import Variation

CUBE_SEPARATION_M = 0.06
"""Least distance between two cube centres that still lets a finger pass between them."""
CUBE_AREA = ((0.0, 0.2), (0.4, 0.6))
"""x and y ranges of cube centres, [m], as gym-aloha's."""
LARGEST_NUDGE_M = 0.05
EVENT_STEPS = (10, 50)
"""First and last control step at which something changes. An expert would have its fingers around the cube at 68."""
_SOCKETS = tuple(f"socket-{i}" for i in range(1, 5))
"""The four walls of the socket."""


@dataclass(frozen=True)
class Event:
    """What changes during an episode. None leaves things as they are."""

    step: int
    """Control periods since the reset; what is observed from this instant on shows the change."""
    pose: np.ndarray | None = None
    """Where the target lies at rest from now on, (7,): x y z, quaternion w x y z."""
    instruction: str | None = None
    target: str | None = None


@dataclass(frozen=True)
class Episode:
    """What one reset drew."""

    seed: int
    objects: np.ndarray
    """Free-joint positions of all objects, (7 * objects,): x y z, quaternion w x y z."""
    instruction: str
    target: str
    """Geom name of the object to hand over, or 'red_peg'."""
    variation: Variation = field(default_factory=Variation)
    event: Event | None = None
    """What is going to change."""

    def after(self, event: Event) -> Episode:
        """Returns the episode with what is asked once an event has happened."""
        return replace(self, instruction=event.instruction or self.instruction, target=event.target or self.target)


@dataclass(frozen=True)
class World:
    """One task."""

    name: str
    make_model: Callable[[], mujoco.MjModel]
    sample: Callable[[int, str], Episode]
    """(seed, phrase set) to an episode; phrase sets are those of ``phrases.PHRASE_SETS``."""
    reward: Callable[[frozenset[tuple[str, str]], Episode], int]
    """Touching geom pairs to gym-aloha's reward 0..4."""
    is_strict: Callable[[frozenset[tuple[str, str]], Episode], bool]
    """Whether the end state counts as a success that a person would accept."""
    tasks: Callable[[int], tuple[str, ...]]
    """Seed to the tasks of ``phrases.TASKS`` that are asked, one after the other."""
    episode_steps: int = 400
    """Length in control steps of 20 ms, as in ACT's evaluation."""
    max_reward: int = 4

    def task(self, seed: int) -> str:
        """Returns the task of ``phrases.TASKS`` that is asked first."""
        return self.tasks(seed)[0]


def find_world(name: str) -> World:
    """Returns a world by name.

    Raises:
        WorldError: there is no such world.
    """
    if name not in WORLDS:
        raise WorldError(one_of("World", name, WORLDS))
    return WORLDS[name]


def _sample_transfer(seed: int, phrase_set: str) -> Episode:
    instruction = phrases.draw("transfer", phrase_set, seed)
    return Episode(seed, sample_box_pose(seed), instruction, "red_box")


def _sample_insertion(seed: int, phrase_set: str) -> Episode:
    instruction = phrases.draw("insertion", phrase_set, seed)
    return Episode(seed, np.concatenate(sample_insertion_pose(seed)), instruction, "red_peg")


def _sample_language(seed: int, phrase_set: str) -> Episode:
    rng = np.random.default_rng([seed, 7])
    (x_low, x_high), (y_low, y_high) = CUBE_AREA
    centres: list[np.ndarray] = []
    while len(centres) < 3:
        centre = rng.uniform([x_low, y_low], [x_high, y_high])
        if all(np.linalg.norm(centre - other) >= CUBE_SEPARATION_M for other in centres):
            centres.append(centre)
    poses = []
    for centre in centres:
        yaw = rng.uniform(-np.pi / 4, np.pi / 4)
        poses.append([*centre, scene.CUBE_HALF_SIZE_M + 0.001, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
    colour = str(rng.choice(list(scene.CUBE_COLOURS)))
    instruction = phrases.draw(colour, phrase_set, seed)
    return Episode(seed, np.concatenate(poses), instruction, f"{colour}_box", Variation.draw(rng))


def _sample_nudged(seed: int, phrase_set: str) -> Episode:
    episode = _sample_transfer(seed, phrase_set)
    rng = np.random.default_rng([seed, 17])
    step = _draw_step(rng)
    low, high = np.array(CUBE_AREA).T
    while True:
        distance, direction = LARGEST_NUDGE_M * np.sqrt(rng.uniform()), rng.uniform(0.0, 2.0 * np.pi)
        centre = episode.objects[:2] + distance * np.array([np.cos(direction), np.sin(direction)])
        if (centre >= low).all() and (centre <= high).all():
            break
    pose = np.array([*centre, scene.CUBE_HALF_SIZE_M, *episode.objects[3:]])
    return replace(episode, event=Event(step, pose=pose))


def _sample_switch(seed: int, phrase_set: str) -> Episode:
    episode = _sample_language(seed, phrase_set)
    rng = np.random.default_rng([seed, 19])
    step = _draw_step(rng)
    colour = str(rng.choice([name for name in scene.CUBE_COLOURS if f"{name}_box" != episode.target]))
    instruction = phrases.draw(colour, phrase_set, seed, turn=1)
    return replace(episode, event=Event(step, instruction=instruction, target=f"{colour}_box"))


def _draw_step(rng: np.random.Generator) -> int:
    return int(rng.integers(EVENT_STEPS[0], EVENT_STEPS[1] + 1))


def _asked_colour(seed: int) -> tuple[str, ...]:
    return (_sample_language(seed, "plain").target.removesuffix("_box"),)


def _asked_colours(seed: int) -> tuple[str, ...]:
    episode = _sample_switch(seed, "plain")
    return tuple(target.removesuffix("_box") for target in (episode.target, episode.event.target))


def _cube_reward(touching: frozenset[tuple[str, str]], episode: Episode) -> int:
    cube = episode.target
    on_table = (cube, "table") in touching
    right = (cube, "vx300s_right/10_right_gripper_finger") in touching
    left = (cube, "vx300s_left/10_left_gripper_finger") in touching
    if left:
        return 3 if on_table else 4
    if right:
        return 1 if on_table else 2
    return 0


def _touches(touching: frozenset[tuple[str, str]], geom: str, prefix: str) -> bool:
    return any((a == geom and b.startswith(prefix)) or (b == geom and a.startswith(prefix)) for a, b in touching)


def _cube_strict(touching: frozenset[tuple[str, str]], episode: Episode) -> bool:
    """The left hand holds the cube, the right hand is clear of it, and no other cube left the table."""
    others = [f"{colour}_box" for colour in scene.CUBE_COLOURS if f"{colour}_box" != episode.target]
    lifted = len(episode.objects) > 7 and any(not _touches(touching, cube, "table") for cube in others)
    held = _cube_reward(touching, episode) == 4
    return held and not lifted and not _touches(touching, episode.target, "vx300s_right/")


def _insertion_reward(touching: frozenset[tuple[str, str]], episode: Episode) -> int:
    del episode  # The objects never differ.
    right = ("red_peg", "vx300s_right/10_right_gripper_finger") in touching
    left = any((socket, "vx300s_left/10_left_gripper_finger") in touching for socket in _SOCKETS)
    aloft = ("red_peg", "table") not in touching and all((socket, "table") not in touching for socket in _SOCKETS)
    reward = 0
    if left and right:
        reward = 2 if aloft else 1
    if aloft and any(("red_peg", socket) in touching for socket in _SOCKETS):
        reward = 3
    if ("red_peg", "pin") in touching:
        reward = 4
    return reward


def _insertion_strict(touching: frozenset[tuple[str, str]], episode: Episode) -> bool:
    """The peg sits in the socket, aloft, with both hands still holding."""
    in_hands = _touches(touching, "red_peg", "vx300s_right/") and any(
        _touches(touching, socket, "vx300s_left/") for socket in _SOCKETS
    )
    return in_hands and _insertion_reward(touching, episode) == 4


WORLDS: Mapping[str, World] = {
    world.name: world
    for world in (
        World(
            name="aloha_transfer_cube",
            make_model=scene.transfer_cube_model,
            sample=_sample_transfer,
            reward=_cube_reward,
            is_strict=_cube_strict,
            tasks=lambda seed: ("transfer",),
        ),
        World(
            name="aloha_insertion",
            make_model=scene.insertion_model,
            sample=_sample_insertion,
            reward=_insertion_reward,
            is_strict=_insertion_strict,
            tasks=lambda seed: ("insertion",),
        ),
        World(
            name="aloha_language",
            make_model=scene.three_cubes_model,
            sample=_sample_language,
            reward=_cube_reward,
            is_strict=_cube_strict,
            tasks=_asked_colour,
        ),
        World(
            name="aloha_nudged",
            make_model=scene.transfer_cube_model,
            sample=_sample_nudged,
            reward=_cube_reward,
            is_strict=_cube_strict,
            tasks=lambda seed: ("transfer",),
            episode_steps=500,
        ),
        World(
            name="aloha_switch",
            make_model=scene.three_cubes_model,
            sample=_sample_switch,
            reward=_cube_reward,
            is_strict=_cube_strict,
            tasks=_asked_colours,
            episode_steps=500,
        ),
    )
}
