"""A robot is one YAML file: joints with limits and slots, cameras, controllers, topics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dit_policy_ros.calibration import Calibration, Kinematics, parse_calibration, parse_kinematics
from dit_policy_ros.controllers import POSE_CHANNELS, Controller, parse_controllers
from dit_policy_ros.errors import RobotError, one_of
from dit_policy_ros.resources import find_config
from dit_policy_ros.space import SlotMap
from dit_policy_ros.strict_yaml import fields_of, load_yaml_mapping, number, pair, positive

IMAGE_TRANSPORTS = ("raw", "compressed")
UNSTATED_RAMP_S = 0.01
"""In which a joint without a jerk limit may reach its largest acceleration, [s]."""
IMAGE_PICKS = ("newest", "nearest")


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
    """Largest acceleration, [rad/s^2], [m/s^2] or [1/s^2]."""
    jerk: float
    """Largest jerk, [rad/s^3], [m/s^3] or [1/s^3]; where the YAML has none, ``acceleration / UNSTATED_RAMP_S``."""
    tracking_error: float | None = None
    """Farthest that the joint may be measured from where it was told to be, unit of the position; None: any."""


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
    pick: str = "newest"
    """Which image goes into an observation: the 'newest', or the one 'nearest' to the reference camera's."""
    tolerance_s: float = 0.0
    """An image farther from the reference camera's is not used, [s]; 0 allows any distance."""
    optional: bool = False
    """Observations are made without it where it cannot be used."""
    depth_topic: str = ""
    """Topic of raw depth images, the compressed ones are on ``<topic>/compressedDepth``; '' where there are none."""
    calibration: Calibration | None = None


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
    other_states_topics: tuple[str, ...] = ()
    """More joint states; a joint that several topics name belongs to the first of them."""
    pose_topics: Mapping[str, str] = field(default_factory=dict)
    """Arm to the topic of its measured end-effector pose, for arms whose channels are poses."""
    home: Mapping[str, float] = field(default_factory=dict)
    """Joint name to the position that the service ``home`` moves to; empty where there is none."""
    episode_topic: str = ""
    """Tells where an episode begins and ends; '' where a bag is one."""
    episode_gap_s: float = 0.0
    """A pause of the joint states this long ends an episode, [s]; 0 where a bag is one."""
    kinematics: Kinematics | None = None
    """Tells where the hands are; None where nobody described it."""

    @property
    def states_topics(self) -> tuple[str, ...]:
        """All topics of joint states."""
        return (self.joint_states_topic, *self.other_states_topics)

    @property
    def measured_topics(self) -> tuple[str, ...]:
        """All topics that positions come from: joint states and poses."""
        return (*self.states_topics, *self.pose_topics.values())

    def joints_by_topic(self) -> dict[str, tuple[str, ...]]:
        """Returns topic to the joints that a simulator sends on it: an arm's if there are as many, else all on one."""
        arms = tuple(dict.fromkeys(joint.arm for joint in self.joints))
        if len(arms) != len(self.states_topics):
            return {self.joint_states_topic: self.names}
        return {
            topic: tuple(joint.name for joint in self.joints if joint.arm == arm)
            for topic, arm in zip(self.states_topics, arms, strict=True)
        }

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

    @property
    def jerk(self) -> np.ndarray:
        """Jerk limits, (len(names),)."""
        return np.array([joint.jerk for joint in self.joints])


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
        optional=("instruction", "poses", "episodes", "home", "kinematics"),
    )
    joints = _parse_joints(top["arms"], where)
    known = {joint.name for joint in joints}
    if len(known) != len(joints):
        names = [joint.name for joint in joints]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RobotError(f"{where}: joint {', '.join(twice)} appears twice; every joint needs its own name.")
    states = fields_of(top["joint_states"], f"{where}: joint_states", RobotError, ("topic", "max_age_s"))
    states_topics = _topics(states["topic"], f"{where}: joint_states.topic")
    episodes = fields_of(top.get("episodes", {}), f"{where}: episodes", RobotError, (), ("topic", "gap_s"))
    instruction = fields_of(
        top.get("instruction", {"topic": "/instruction"}), f"{where}: instruction", RobotError, ("topic",)
    )
    spec = RobotSpec(
        name=str(top["name"]),
        joints=joints,
        cameras=_parse_cameras(top["cameras"], where),
        controllers=parse_controllers(top["controllers"], {j.name: (j.arm, j.slot) for j in joints}, where),
        joint_states_topic=states_topics[0],
        joint_states_max_age_s=positive(states["max_age_s"], f"{where}: joint_states.max_age_s", RobotError),
        instruction_topic=str(instruction["topic"]),
        other_states_topics=states_topics[1:],
        pose_topics=_parse_poses(top.get("poses", {}), joints, where),
        home=_parse_home(top["home"], joints, where) if "home" in top else {},
        episode_topic=str(episodes.get("topic", "")),
        episode_gap_s=positive(episodes["gap_s"], f"{where}: episodes.gap_s", RobotError)
        if "gap_s" in episodes
        else 0.0,
        kinematics=parse_kinematics(top["kinematics"], known, where) if "kinematics" in top else None,
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
            values = fields_of(entry, place, RobotError, required, ("jerk", "tracking_error"))
            lower, upper = pair(values["position"], f"{place}: position", RobotError)
            acceleration = positive(values["acceleration"], f"{place}: acceleration", RobotError)
            jerk = positive(values.get("jerk", acceleration / UNSTATED_RAMP_S), f"{place}: jerk", RobotError)
            tracking = values.get("tracking_error")
            joints.append(
                Joint(
                    name=str(name),
                    arm=str(arm),
                    slot=str(values["slot"]),
                    lower=lower,
                    upper=upper,
                    velocity=positive(values["velocity"], f"{place}: velocity", RobotError),
                    acceleration=acceleration,
                    jerk=jerk,
                    tracking_error=tracking and positive(tracking, f"{place}: tracking_error", RobotError),
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
        optional = ("pick", "tolerance_s", "optional", "depth", "calibration")
        values = fields_of(entry, place, RobotError, ("topic", "transport", "max_age_s"), optional)
        if values.get("pick", "newest") not in IMAGE_PICKS:
            raise RobotError(f"{place}: " + one_of("Pick", str(values["pick"]), IMAGE_PICKS))
        if values["transport"] not in IMAGE_TRANSPORTS:
            raise RobotError(f"{place}: transport '{values['transport']}' is not one of {', '.join(IMAGE_TRANSPORTS)}.")
        parsed[str(name)] = Camera(
            name=str(name),
            topic=str(values["topic"]),
            transport=str(values["transport"]),
            max_age_s=positive(values["max_age_s"], f"{place}: max_age_s", RobotError),
            pick=str(values.get("pick", "newest")),
            tolerance_s=positive(values["tolerance_s"], f"{place}: tolerance_s", RobotError)
            if "tolerance_s" in values
            else 0.0,
            optional=values.get("optional", False) is True,
            depth_topic=str(values.get("depth", "")),
            calibration=parse_calibration(values["calibration"], place) if "calibration" in values else None,
        )
    return parsed


def _topics(given: Any, place: str) -> tuple[str, ...]:
    topics = tuple(str(topic) for topic in (given if isinstance(given, list) else [given]))
    if not topics or len(set(topics)) != len(topics):
        raise RobotError(f"{place} is '{given}'; it must be a topic, or a list of different ones.")
    return topics


def _parse_poses(entries: Any, joints: tuple[Joint, ...], where: str) -> dict[str, str]:
    topics = fields_of(entries, f"{where}: poses", RobotError, required=(), optional=("left", "right"))
    for arm in topics:
        missing = [slot for slot in pose_slots(arm) if slot not in {joint.slot for joint in joints}]
        if missing:
            raise RobotError(
                f"{where}: poses.{arm} needs channels of the slots {', '.join(pose_slots(arm))}; "
                f"{', '.join(missing)} is missing below arms."
            )
    return {arm: str(topic) for arm, topic in topics.items()}


def _parse_home(entries: Any, joints: tuple[Joint, ...], where: str) -> dict[str, float]:
    place = f"{where}: home"
    values = fields_of(entries, place, RobotError, tuple(joint.name for joint in joints))
    home = {joint.name: number(values[joint.name], f"{place}: {joint.name}", RobotError) for joint in joints}
    for joint in joints:
        if not joint.lower <= home[joint.name] <= joint.upper:
            raise RobotError(
                f"{place}: {joint.name} is {home[joint.name]:g}; its limits are [{joint.lower:g}, {joint.upper:g}]."
            )
    return home


def pose_slots(arm: str) -> tuple[str, ...]:
    """Returns the slots of an arm's end-effector pose: position [m], then the first two columns of its rotation."""
    return tuple(f"{arm}_{channel}" for channel in POSE_CHANNELS)
