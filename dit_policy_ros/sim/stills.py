"""Labelled stills: many scenes seen once each, for teaching System 2 where things are before it learns to act.

A demonstration costs a second and shows one scene; a still costs a fiftieth of that. What is asked is left open: one
image of three cubes has a right answer for each of them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mujoco
import numpy as np
from gym_aloha.constants import unnormalize_puppet_gripper_position
from tqdm import tqdm

from dit_policy_ros.data.images import decode_compressed, encode_jpeg
from dit_policy_ros.errors import WorldError, one_of
from dit_policy_ros.policy.cameras import CameraView
from dit_policy_ros.robot import load_robot
from dit_policy_ros.sim.body import AlohaBody
from dit_policy_ros.sim.expert import plan_episode
from dit_policy_ros.sim.worlds import CUBE_SEPARATION_M, Episode

PLACE_WIDTH = 6
"""Right object's x and y, left object's x and y, cosine and sine of four times the right one's yaw; about -1..1.

The last two are a quarter as large: a few pixels hardly show the yaw, and chasing it spoils the rest.
"""
STILL_OBJECTS: Mapping[str, Mapping[str, tuple[int, int | None]]] = {
    "aloha_transfer_cube": {"transfer": (0, None)},
    "aloha_insertion": {"insertion": (0, 1)},
    "aloha_language": {"red": (0, None), "green": (1, None), "blue": (2, None)},
}
"""World to what can be asked there, and which objects each hand then needs: right, left."""
_FIRST_SEED = 500_000
"""Above every seed that recordings and evaluations use."""
_SCENES_PER_PLAN = 25
"""Planning costs as much as ten renderings, so the postures of one plan serve several scenes."""
_SHARD = 250
_UNDER_HAND_SHARE = 0.5
"""Share of the scenes in which the object lies where the hand is going; in the others the hand has yet to arrive."""
_POSTURE_NOISE_RAD = 0.02
_YAW_SHARE = 0.25
_CENTRE_M, _HALF_M = np.array([0.0, 0.5]), np.array([0.2, 0.1])
"""Of the table's part where objects lie, x and y."""
_JOINTS_IN_PLAN = [*range(6), *range(7, 13)]
_JOINTS_IN_MODEL = [*range(6), *range(8, 14)]


@dataclass(frozen=True)
class Stills:
    """Images with answers. N stills, T tasks."""

    images: np.ndarray
    """(N, h, w, 3) uint8."""
    tasks: tuple[str, ...]
    """Names of ``phrases.TASKS`` that can be asked of these scenes."""
    places: np.ndarray
    """(N, T, PLACE_WIDTH), where what each task needs lies; NaN where a task does not say."""


def render_stills(world: str, view: CameraView, count: int, cache: Path, seed: int = 0, workers: int = 2) -> Stills:
    """Renders scenes of a world with the arms somewhere on their way, or loads them from the cache.

    Args:
        view: what the network sees of the camera.
        cache: folder that keeps the result; may be deleted at any time.

    Raises:
        WorldError: there are no stills of such a world.
    """
    if world not in STILL_OBJECTS:
        raise WorldError(one_of("World with stills", world, STILL_OBJECTS))
    cache.mkdir(parents=True, exist_ok=True)
    begins = range(seed, seed + count, _SHARD)
    shards = [(world, view, begin, min(_SHARD, seed + count - begin), cache) for begin in begins]
    missing = [shard for shard in shards if not _file(shard).exists()]
    bar = tqdm(total=len(missing), unit="shard", desc=f"Rendering {world}", disable=not missing)
    for _ in _run(missing, workers):
        bar.update()
    bar.close()
    images, places = [], []
    for shard in shards:
        with np.load(_file(shard), allow_pickle=False) as part:
            images.append(part["images"])
            places.append(part["places"])
    return Stills(np.concatenate(images), tuple(STILL_OBJECTS[world]), np.concatenate(places))


Shard = tuple[str, CameraView, int, int, Path]
"""World, view, first scene, number of scenes, cache."""


def _file(shard: Shard) -> Path:
    world, view, begin, count, cache = shard
    kept = "-".join(f"{value:g}" for value in (*view.source, *view.box, *view.size, *(view.frame or ())))
    return cache / f"stills-{world}-{view.name}-{kept}-{begin}-{count}.npz"


def _run(shards: Sequence[Shard], workers: int) -> Iterator[None]:
    if workers <= 1 or len(shards) <= 1:
        yield from map(_render_shard, shards)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(_render_shard, shards)


def _render_shard(shard: Shard) -> None:
    world, view, begin, count, _ = shard
    body = AlohaBody(world, load_robot("aloha"))
    images, places = [], []
    for first in range(begin, begin + count, _SCENES_PER_PLAN):
        rng = np.random.default_rng([first, 17])
        body.reset(_FIRST_SEED + first)
        planned, postures = body.episode, _approach(plan_episode(body).targets)
        for index in range(first, min(first + _SCENES_PER_PLAN, begin + count)):
            scene, seen = body.world.sample(_FIRST_SEED + index, "plain"), postures[: len(postures) // 2]
            if rng.random() < _UNDER_HAND_SHARE:
                scene, seen = _under_hand(scene, planned, world), postures
            body.start(scene)
            _pose_arms(body, seen[rng.integers(len(seen))], rng)
            # Recordings and live topics carry JPEG, so the network sees it here too.
            image = decode_compressed(encode_jpeg(body.render(view.name, *view.source)))
            images.append(view.apply(image))
            places.append([_place(scene, *objects) for objects in STILL_OBJECTS[world].values()])
    body.close()
    unfinished = _file(shard).with_suffix(".writing")
    with open(unfinished, "wb") as out:
        np.savez(out, images=np.stack(images), places=np.array(places, dtype=np.float32))
    unfinished.rename(_file(shard))


def _approach(targets: np.ndarray) -> np.ndarray:
    """The postures of a plan before a hand closes around something, (steps, 14)."""
    opened = np.maximum.accumulate(targets[:, 13])
    return targets[: int(np.argmax(targets[:, 13] < opened))]


def _under_hand(scene: Episode, planned: Episode, world: str) -> Episode:
    """Puts what is asked for where the plan's own lies, unless that is too close to something else."""
    if world == "aloha_insertion":
        return replace(scene, objects=planned.objects)
    names = [f"{task}_box" for task in STILL_OBJECTS[world]] if world == "aloha_language" else ["red_box"]
    objects = scene.objects.reshape(-1, 7).copy()
    mine = names.index(scene.target)
    objects[mine] = planned.objects.reshape(-1, 7)[names.index(planned.target)]
    others = np.delete(objects, mine, axis=0)
    if len(others) and np.linalg.norm(others[:, :2] - objects[mine, :2], axis=1).min() < CUBE_SEPARATION_M:
        return scene
    return replace(scene, objects=objects.ravel())


def _pose_arms(body: AlohaBody, posture: np.ndarray, rng: np.random.Generator) -> None:
    """Sets the arms without physics; only what the camera sees matters."""
    body.data.qpos[_JOINTS_IN_MODEL] = posture[_JOINTS_IN_PLAN] + rng.normal(0.0, _POSTURE_NOISE_RAD, 12)
    left, right = unnormalize_puppet_gripper_position(posture[[6, 13]])
    body.data.qpos[[6, 7, 14, 15]] = left, -left, right, -right
    mujoco.mj_forward(body.model, body.data)


def _place(scene: Episode, right: int, left: int | None) -> np.ndarray:
    """Where the objects for both hands lie, (PLACE_WIDTH,)."""
    objects = scene.objects.reshape(-1, 7)
    place = np.full(PLACE_WIDTH, np.nan, dtype=np.float32)
    place[:2] = (objects[right, :2] - _CENTRE_M) / _HALF_M
    if left is not None:
        place[2:4] = (objects[left, :2] - _CENTRE_M) / _HALF_M
    else:
        yaw = 2.0 * np.arctan2(objects[right, 6], objects[right, 3])
        place[4:] = _YAW_SHARE * np.cos(4.0 * yaw), _YAW_SHARE * np.sin(4.0 * yaw)
    return place
