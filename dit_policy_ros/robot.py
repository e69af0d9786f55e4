"""A robot is one YAML file: joints with limits and slots, cameras, controllers, topics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dit_policy_ros.errors import RobotError
from dit_policy_ros.resources import find_config
from dit_policy_ros.space import SlotMap
from dit_policy_ros.strict_yaml import fields_of, load_yaml_mapping, pair, positive

CONTROLLER_TYPES = ("joint_trajectory",)
IMAGE_TRANSPORTS = ("raw", "compressed")


@dataclass(frozen=True)
class Joint:
    """One joint or gripper."""

    name: str
    arm: str
    """'left' or 'right'."""
    slot: str
    """Name in the unified action space."""
    lower: float
    """[rad], [m], or 0..1 for a gripper."""
    upper: float
    velocity: float
    """Largest speed, [rad/s], [m/s] or [1/s]."""
    acceleration: float
    """Largest acceleration, used for a decelerating hold, [rad/s^2], [m/s^2] or [1/s^2]."""


@dataclass(frozen=True)
class Camera:
    """One camera stream."""

    name: str
    topic: str
    """Topic of the raw image; the compressed one is ``<topic>/compressed``."""
    transport: str
    """'raw' or 'compressed': which of the two the policy subscribes to."""
    max_age_s: float
    """An image older than this is not used, [s]."""


@dataclass(frozen=True)
class Controller:
    """One controller that takes commands for some joints."""

    name: str
    type: str
    topic: str
    joints: tuple[str, ...]


@dataclass(frozen=True)
class RobotSpec:
    """Everything the package knows of a robot. Immutable, validated at load."""

    name: str
    joints: tuple[Joint, ...]
    cameras: Mapping[str, Camera]
    controllers: tuple[Controller, ...]
    joint_states_topic: str
    joint_states_max_age_s: float
    """Joint states older than this stop the arms, [s]."""
    instruction_topic: str

    @property
    def names(self) -> tuple[str, ...]:
        """All joint names, left arm first, in the order of the YAML."""
        return tuple(joint.name for joint in self.joints)

    @property
    def slots(self) -> SlotMap:
        """The map between joints and the unified action space."""
        return SlotMap.from_slots({joint.name: joint.slot for joint in self.joints})

    @property
    def lower(self) -> np.ndarray:
        """Lower position limits, (len(names),)."""
        return np.array([joint.lower for joint in self.joints])

    @property
    def upper(self) -> np.ndarray:
        """Upper position limits, (len(names),)."""
        return np.array([joint.upper for joint in self.joints])

    @property
    def velocity(self) -> np.ndarray:
        """Speed limits, (len(names),)."""
        return np.array([joint.velocity for joint in self.joints])

    @property
    def acceleration(self) -> np.ndarray:
        """Acceleration limits, (len(names),)."""
        return np.array([joint.acceleration for joint in self.joints])


def load_robot(path: str | Path) -> RobotSpec:
    """Loads a robot description.

    Args:
        path: a YAML file, or the bare name of one shipped in ``config/robots``.

    Raises:
        ConfigError: there is no such file.
        RobotError: the file is malformed or contradicts itself; the text names the entry.
    """
    path = find_config("robots", path)
    return parse_robot(load_yaml_mapping(path, RobotError), str(path))


def parse_robot(data: Mapping[str, Any], where: str) -> RobotSpec:
    """Validates a robot description that was read from YAML.

    Raises:
        RobotError: see ``load_robot``.
    """
    top = fields_of(
        data,
        where,
        RobotError,
        required=("name", "arms", "cameras", "controllers", "joint_states"),
        optional=("instruction",),
    )
    joints = _parse_joints(top["arms"], where)
    known = {joint.name for joint in joints}
    if len(known) != len(joints):
        names = [joint.name for joint in joints]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RobotError(f"{where}: joint {', '.join(twice)} appears twice; every joint needs its own name.")
    states = fields_of(top["joint_states"], f"{where}: joint_states", RobotError, ("topic", "max_age_s"))
    instruction = fields_of(
        top.get("instruction", {"topic": "/instruction"}), f"{where}: instruction", RobotError, ("topic",)
    )
    spec = RobotSpec(
        name=str(top["name"]),
        joints=joints,
        cameras=_parse_cameras(top["cameras"], where),
        controllers=_parse_controllers(top["controllers"], known, where),
        joint_states_topic=str(states["topic"]),
        joint_states_max_age_s=positive(states["max_age_s"], f"{where}: joint_states.max_age_s", RobotError),
        instruction_topic=str(instruction["topic"]),
    )
    spec.slots  # noqa: B018  raises on an unknown or doubly used slot
    return spec


def _parse_joints(arms: Any, where: str) -> tuple[Joint, ...]:
    sides = fields_of(arms, f"{where}: arms", RobotError, required=(), optional=("left", "right"))
    joints = []
    for arm, entries in sides.items():
        if not isinstance(entries, Mapping) or not entries:
            raise RobotError(f"{where}: arms.{arm} must map joint names to their limits.")
        for name, entry in entries.items():
            place = f"{where}: joint {name}"
            required = ("slot", "position", "velocity", "acceleration")
            values = fields_of(entry, place, RobotError, required)
            lower, upper = pair(values["position"], f"{place}: position", RobotError)
            joints.append(
                Joint(
                    name=str(name),
                    arm=str(arm),
                    slot=str(values["slot"]),
                    lower=lower,
                    upper=upper,
                    velocity=positive(values["velocity"], f"{place}: velocity", RobotError),
                    acceleration=positive(values["acceleration"], f"{place}: acceleration", RobotError),
                )
            )
    if not joints:
        raise RobotError(f"{where}: arms is empty; describe at least one arm.")
    return tuple(joints)


def _parse_cameras(cameras: Any, where: str) -> dict[str, Camera]:
    if not isinstance(cameras, Mapping):
        raise RobotError(f"{where}: cameras must map camera names to their topics.")
    parsed = {}
    for name, entry in cameras.items():
        place = f"{where}: camera {name}"
        values = fields_of(entry, place, RobotError, ("topic", "transport", "max_age_s"))
        if values["transport"] not in IMAGE_TRANSPORTS:
            raise RobotError(f"{place}: transport '{values['transport']}' is not one of {', '.join(IMAGE_TRANSPORTS)}.")
        parsed[str(name)] = Camera(
            name=str(name),
            topic=str(values["topic"]),
            transport=str(values["transport"]),
            max_age_s=positive(values["max_age_s"], f"{place}: max_age_s", RobotError),
        )
    return parsed


def _parse_controllers(controllers: Any, known: set[str], where: str) -> tuple[Controller, ...]:
    if not isinstance(controllers, Mapping) or not controllers:
        raise RobotError(f"{where}: controllers must map controller names to their joints.")
    parsed: list[Controller] = []
    owner: dict[str, str] = {}
    for name, entry in controllers.items():
        place = f"{where}: controller {name}"
        values = fields_of(entry, place, RobotError, ("type", "joints"), ("topic",))
        if values["type"] not in CONTROLLER_TYPES:
            raise RobotError(f"{place}: type '{values['type']}' is not one of {', '.join(CONTROLLER_TYPES)}.")
        joints = tuple(str(joint) for joint in values["joints"])
        for joint in joints:
            if joint not in known:
                raise RobotError(f"{place}: joint '{joint}' is unknown. Known: {', '.join(sorted(known))}.")
            if joint in owner:
                raise RobotError(f"{place}: joint '{joint}' already belongs to {owner[joint]}.")
            owner[joint] = str(name)
        topic = str(values.get("topic", f"/{name}/joint_trajectory"))
        parsed.append(Controller(str(name), str(values["type"]), topic, joints))
    orphans = sorted(known - owner.keys())
    if orphans:
        raise RobotError(f"{where}: no controller moves {', '.join(orphans)}; add them to one, or remove them.")
    return tuple(parsed)
