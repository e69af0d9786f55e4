"""What takes a robot's commands: one entry below ``controllers`` of its YAML each, checked against what it accepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dit_policy_ros.errors import RobotError
from dit_policy_ros.strict_yaml import fields_of, positive

POSE_CHANNELS = (*(f"eef_pos_{axis}" for axis in "xyz"), *(f"eef_angle_{k}" for k in range(6)))
"""Slots of one end effector without its arm: position [m], then the first two columns of its rotation."""


@dataclass(frozen=True)
class ControllerType:
    """What a kind of controller listens to and how it may be set up."""

    topic: str
    """Topic or action below the controller's name, unless the YAML names one."""
    options: tuple[str, ...] = ()
    """Optional keys."""
    takes_pose: bool = False
    """Its joints are the nine channels of one arm's end effector, in order."""
    takes_one: bool = False
    """It has one joint."""


CONTROLLER_TYPES: Mapping[str, ControllerType] = {
    "joint_trajectory": ControllerType("joint_trajectory", ("accelerations", "max_state_age_s")),
    "forward_command": ControllerType("commands"),
    "joint_jog": ControllerType("delta_joint_cmds", ("frame_id",)),
    "pose": ControllerType("target_frame", ("frame_id",), takes_pose=True),
    "twist": ControllerType("delta_twist_cmds", ("frame_id",), takes_pose=True),
    "pose_trajectory": ControllerType("pose_trajectory", ("frame_id",), takes_pose=True),
    "gripper_command": ControllerType("gripper_cmd", ("max_effort", "tolerance"), takes_one=True),
    "parallel_gripper_command": ControllerType("gripper_cmd", ("max_effort", "tolerance"), takes_one=True),
}
"""Type in the YAML to what it means; ``ros/outputs`` says how each is sent."""


@dataclass(frozen=True)
class Controller:
    """One controller that takes commands for some joints."""

    name: str
    type: str
    """Key of ``CONTROLLER_TYPES``."""
    topic: str
    joints: tuple[str, ...]
    """In the order the controller has them; without names in the message, the order is all there is."""
    frame_id: str = ""
    """Frame of poses and twists, which the controller must know."""
    accelerations: bool = False
    """Trajectory points carry accelerations too; such a controller interpolates with quintics."""
    max_state_age_s: float = 0.0
    """Silence on its ``controller_state`` after which the arms stop, [s]; 0: it is not listened to."""
    max_effort: float = 0.0
    """Of a gripper action, [N] or [N m]; 0 leaves it to the gripper."""
    tolerance: float = 0.02
    """A gripper is sent a new goal when its target moved by this much of its range."""


def parse_controllers(entries: Any, joints: Mapping[str, tuple[str, str]], where: str) -> tuple[Controller, ...]:
    """Validates the ``controllers`` of a robot description.

    Args:
        entries: controller name to its keys, as read.
        joints: every joint of the robot to its arm and its slot.
        where: for error texts.

    Raises:
        RobotError: an entry is malformed, a joint is unknown or belongs to two controllers or none.
    """
    if not isinstance(entries, Mapping) or not entries:
        raise RobotError(f"{where}: controllers must map controller names to their joints.")
    parsed: list[Controller] = []
    owner: dict[str, str] = {}
    for name, entry in entries.items():
        place = f"{where}: controller {name}"
        controller = _parse_one(str(name), entry, place)
        for joint in controller.joints:
            if joint not in joints:
                raise RobotError(f"{place}: joint '{joint}' is unknown. Known: {', '.join(sorted(joints))}.")
            if joint in owner:
                raise RobotError(f"{place}: joint '{joint}' already belongs to {owner[joint]}.")
            owner[joint] = controller.name
        _check_joints(controller, joints, place)
        parsed.append(controller)
    orphans = sorted(joints.keys() - owner.keys())
    if orphans:
        raise RobotError(f"{where}: no controller moves {', '.join(orphans)}; add them to one, or remove them.")
    topics = [controller.topic for controller in parsed]
    twice = sorted({topic for topic in topics if topics.count(topic) > 1})
    if twice:
        raise RobotError(f"{where}: two controllers listen to {', '.join(twice)}; give each its own topic.")
    return tuple(parsed)


def _parse_one(name: str, entry: Any, place: str) -> Controller:
    kind_name = entry.get("type") if isinstance(entry, Mapping) else None
    options: tuple[str, ...] = ()
    if kind_name is not None:
        if kind_name not in CONTROLLER_TYPES:
            raise RobotError(f"{place}: type '{kind_name}' is not one of {', '.join(CONTROLLER_TYPES)}.")
        options = CONTROLLER_TYPES[kind_name].options
    values = fields_of(entry, place, RobotError, ("type", "joints"), ("topic", *options))
    kind = CONTROLLER_TYPES[kind_name]
    if not isinstance(values["joints"], list) or not values["joints"]:
        raise RobotError(f"{place}: joints must be a list of at least one joint name.")
    changes: dict[str, Any] = {}
    if "accelerations" in values:
        if not isinstance(values["accelerations"], bool):
            raise RobotError(f"{place}: accelerations is '{values['accelerations']}'; it must be true or false.")
        changes["accelerations"] = values["accelerations"]
    for key in ("max_effort", "tolerance", "max_state_age_s"):
        if key in values:
            changes[key] = positive(values[key], f"{place}: {key}", RobotError)
    if "frame_id" in values:
        changes["frame_id"] = str(values["frame_id"])
    topic = str(values.get("topic", f"/{name}/{kind.topic}"))
    return Controller(name, kind_name, topic, tuple(str(joint) for joint in values["joints"]), **changes)


def _check_joints(controller: Controller, joints: Mapping[str, tuple[str, str]], place: str) -> None:
    kind = CONTROLLER_TYPES[controller.type]
    if kind.takes_one and len(controller.joints) != 1:
        raise RobotError(f"{place}: a {controller.type} has one joint, not {len(controller.joints)}.")
    if not kind.takes_pose:
        return
    if not controller.frame_id:
        raise RobotError(f"{place}: a {controller.type} needs frame_id, the frame its poses are in.")
    arm = joints[controller.joints[0]][0]
    slots = tuple(joints[joint][1] for joint in controller.joints)
    wanted = tuple(f"{arm}_{channel}" for channel in POSE_CHANNELS)
    if slots != wanted:
        raise RobotError(
            f"{place}: a {controller.type} takes the channels with the slots {', '.join(wanted)} in this order, "
            f"not {', '.join(slots)}. Give a gripper a controller of its own."
        )
