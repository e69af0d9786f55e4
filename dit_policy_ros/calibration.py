"""Where a robot's cameras are and how its joints move its hands, for pictures that show a path in an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dit_policy_ros.errors import RobotError
from dit_policy_ros.strict_yaml import fields_of, number, pair, positive

_SIZES = {"size": 2, "focal": 2, "centre": 2, "position": 3, "quaternion": 4}


@dataclass(frozen=True)
class Calibration:
    """A pinhole camera without distortion."""

    matrix: np.ndarray = field(compare=False)
    """(3, 3), [pixel]: focal lengths and centre, for images of ``size``."""
    size: tuple[int, int]
    """(width, height) of the images that ``matrix`` is for."""
    pose: np.ndarray = field(compare=False)
    """(4, 4), of the camera's optical frame (x right, y down, z forward) in ``frame``."""
    frame: str = ""
    """Body of the robot's model that carries the camera; '' for a camera that stands still in the world."""


@dataclass(frozen=True)
class Kinematics:
    """A model that tells where the hands are."""

    model: str
    """MJCF file: a path, or 'gym_aloha:FILE' for one of that package's assets."""
    tips: Mapping[str, str]
    """Arm to the site of the model between its fingers."""
    joints: Mapping[str, str] = field(default_factory=dict)
    """Joint of the robot to joint of the model; joints that move no tip may be absent."""
    fingers: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    """Gripper of the robot to joints of the model with their positions at 0 and at 1."""
    objects: tuple[str, ...] = ()
    """Bodies of the model that are handled, and may be touched."""
    touching: tuple[str, ...] = ()
    """Bodies of the model that may touch each other, such as fingers that hand something over."""
    tool_speed: float | None = None
    """Largest speed of a tip, [m/s]; None: any that the joints allow."""
    workspace: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Arm to (2, 3), the lower and upper corner of the box in the world that its tip stays in, [m]."""


def parse_calibration(entry: Any, place: str) -> Calibration:
    """Validates ``calibration`` of a camera.

    Raises:
        RobotError: a number is missing or impossible; the text names it.
    """
    place = f"{place}: calibration"
    values = fields_of(entry, place, RobotError, tuple(_SIZES), ("frame",))
    numbers = {}
    for name, count in _SIZES.items():
        given = values[name]
        if not isinstance(given, list) or len(given) != count:
            raise RobotError(f"{place}: {name} is '{given}'; it must be a list of {count} numbers.")
        numbers[name] = np.array([number(value, f"{place}: {name}", RobotError) for value in given])
    if (numbers["size"] < 1).any() or (numbers["focal"] <= 0).any():
        raise RobotError(f"{place}: size and focal must be above zero, [pixel].")
    length = np.linalg.norm(numbers["quaternion"])
    if abs(length - 1.0) > 0.01:
        raise RobotError(f"{place}: quaternion has length {length:.3f}; it must be (x, y, z, w) of length 1.")
    (width, height), focal, centre = numbers["size"], numbers["focal"], numbers["centre"]
    matrix = np.array([[focal[0], 0.0, centre[0]], [0.0, focal[1], centre[1]], [0.0, 0.0, 1.0]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = _matrix(numbers["quaternion"] / length), numbers["position"]
    return Calibration(matrix, (int(width), int(height)), pose, str(values.get("frame", "")))


def parse_kinematics(entry: Any, joints: Iterable[str], where: str) -> Kinematics:
    """Validates ``kinematics`` of a robot.

    Raises:
        RobotError: an entry is missing, or a joint is not the robot's.
    """
    place = f"{where}: kinematics"
    optional = ("fingers", "objects", "touching", "tool_speed", "workspace")
    joints = tuple(joints)
    values = fields_of(entry, place, RobotError, ("model", "tips", "joints"), optional)
    tips = fields_of(values["tips"], f"{place}.tips", RobotError, (), ("left", "right"))
    mapped = fields_of(values["joints"], f"{place}.joints", RobotError, (), tuple(joints))
    return Kinematics(
        str(values["model"]),
        {arm: str(site) for arm, site in tips.items()},
        {name: str(joint) for name, joint in mapped.items()},
        _parse_fingers(values.get("fingers", {}), joints, f"{place}.fingers"),
        tuple(str(body) for body in values.get("objects", ())),
        tuple(str(body) for body in values.get("touching", ())),
        positive(values["tool_speed"], f"{place}.tool_speed", RobotError) if "tool_speed" in values else None,
        _parse_boxes(values.get("workspace", {}), tuple(tips), f"{place}.workspace"),
    )


def _parse_fingers(entry: Any, joints: tuple[str, ...], place: str) -> dict[str, dict[str, tuple[float, float]]]:
    fingers = {}
    for name, ends in fields_of(entry, place, RobotError, (), joints).items():
        if not isinstance(ends, Mapping):
            raise RobotError(f"{place}.{name} must map joints of the model to [position closed, position open].")
        for joint, pair_of in ends.items():
            if not isinstance(pair_of, list) or len(pair_of) != 2:
                raise RobotError(f"{place}.{name}.{joint} is '{pair_of}'; it must be [position closed, position open].")
        fingers[name] = {
            str(joint): tuple(number(value, f"{place}.{name}.{joint}", RobotError) for value in pair_of)
            for joint, pair_of in ends.items()
        }
    return fingers


def _parse_boxes(entry: Any, arms: tuple[str, ...], place: str) -> dict[str, np.ndarray]:
    boxes = {}
    for arm, sides in fields_of(entry, place, RobotError, (), arms).items():
        axes = fields_of(sides, f"{place}.{arm}", RobotError, ("x", "y", "z"))
        boxes[arm] = np.array([pair(axes[axis], f"{place}.{arm}.{axis}", RobotError) for axis in "xyz"]).T
    return boxes


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    """(x, y, z, w) of length 1 -> (3, 3), by Rodrigues' formula; ``actions.rotation`` lies in a row below."""
    vector, w = quaternion[:3], quaternion[3]
    cross = np.cross(np.eye(3), vector)
    return np.eye(3) + 2.0 * w * cross + 2.0 * cross @ cross
