"""The ROS messages of an episode, built without ROS from the Kilted definitions that ``rosbags`` ships.

These definitions are the same from Humble to Lyrical.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from dit_policy_ros.errors import BagError
from dit_policy_ros.types import NS_PER_S, Trajectory

COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
IMAGE = "sensor_msgs/msg/Image"
JOINT_STATE = "sensor_msgs/msg/JointState"
JOINT_TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
STRING = "std_msgs/msg/String"
CLOCK = "rosgraph_msgs/msg/Clock"
POSE = "geometry_msgs/msg/PoseStamped"
BOOL = "std_msgs/msg/Bool"
EMPTY = "std_msgs/msg/Empty"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
FLOAT64_ARRAY = "std_msgs/msg/Float64MultiArray"


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """Returns the message definitions."""
    return get_typestore(Stores.ROS2_KILTED)


def stamp_ns(message: Any) -> int:
    """Returns the header stamp of a message, [ns]; zero where the driver left it unset."""
    return message.header.stamp.sec * NS_PER_S + message.header.stamp.nanosec


# What rosbags raises on damaged bytes, lengths that are far too large among them.
_DAMAGE = (SerdeError, AssertionError, ValueError, LookupError, TypeError, OverflowError, MemoryError, struct.error)


def deserialize(cdr: bytes, msgtype: str, topic: str) -> Any:
    """Returns a message.

    Raises:
        BagError: the bytes are none of this type.
    """
    try:
        return typestore().deserialize_cdr(cdr, msgtype)
    except _DAMAGE as problem:
        raise BagError(f"A message on {topic} is no whole {msgtype}; the bag is damaged.") from problem


@lru_cache(maxsize=256)
def has_header(msgtype: str) -> bool:
    """Returns whether messages of a type begin with a std_msgs/Header, as far as the type is known."""
    fields = typestore().fielddefs.get(msgtype, ((), ()))[1]
    return bool(fields) and fields[0][0] == "header"


def peek_stamp_ns(cdr: bytes) -> int:
    """Returns the header stamp, [ns], of a message that begins with one, without deserialising the rest; 0 if unset."""
    order = "little" if cdr[1] & 1 else "big"
    second, rest = int.from_bytes(cdr[4:8], order, signed=True), int.from_bytes(cdr[8:12], order)
    return second * NS_PER_S + rest


def peek_compressed_image(cdr: bytes, topic: str) -> tuple[str, np.ndarray]:
    """Returns format and bytes of a CompressedImage; the bytes are not copied, which a deserialiser would.

    Raises:
        BagError: the bytes are none of this type.
    """
    order = "<" if len(cdr) > 1 and cdr[1] & 1 else ">"
    try:
        (length,) = struct.unpack_from(f"{order}I", cdr, 12)
        at = _aligned(16 + length)
        (length,) = struct.unpack_from(f"{order}I", cdr, at)
        image_format = bytes(cdr[at + 4 : at + 4 + length]).rstrip(b"\x00").decode()
        at = _aligned(at + 4 + length)
        (length,) = struct.unpack_from(f"{order}I", cdr, at)
        return image_format, np.frombuffer(cdr, np.uint8, count=length, offset=at + 4)
    except (struct.error, ValueError) as problem:
        raise BagError(f"A message on {topic} is no whole {COMPRESSED_IMAGE}; the bag is damaged.") from problem


def _aligned(offset: int) -> int:
    """Returns the next place of a number of four bytes; CDR counts from after its own header of four."""
    return (offset + 3) // 4 * 4


def duration_ns(duration: Any) -> int:
    """Returns a ``builtin_interfaces/Duration`` in [ns]."""
    return duration.sec * NS_PER_S + duration.nanosec


def _make(msgtype: str, *values: Any) -> Any:
    return typestore().types[msgtype](*values)


def _time(instant_ns: int) -> Any:
    return _make("builtin_interfaces/msg/Time", *divmod(int(instant_ns), NS_PER_S))


def _header(instant_ns: int, frame: str = "") -> Any:
    return _make("std_msgs/msg/Header", _time(instant_ns), frame)


def compressed_image(instant_ns: int, camera: str, data: bytes, image_format: str) -> Any:
    """Returns a CompressedImage whose frame is the camera."""
    return _make(COMPRESSED_IMAGE, _header(instant_ns, camera), image_format, np.frombuffer(data, np.uint8))


def image(instant_ns: int, camera: str, rgb: np.ndarray) -> Any:
    """Returns an Image with encoding rgb8 of (H, W, 3) uint8."""
    height, width = rgb.shape[:2]
    data = np.ascontiguousarray(rgb).reshape(-1)
    return _make(IMAGE, _header(instant_ns, camera), height, width, "rgb8", 0, 3 * width, data)


def joint_state(instant_ns: int, names: Sequence[str], positions: np.ndarray, velocities: np.ndarray) -> Any:
    """Returns a JointState without efforts; ``velocities`` may be empty."""
    return _make(
        JOINT_STATE,
        _header(instant_ns),
        list(names),
        np.ascontiguousarray(positions, np.float64),
        np.ascontiguousarray(velocities, np.float64),
        np.empty(0),
    )


def joint_trajectory(trajectory: Trajectory) -> Any:
    """Returns a JointTrajectory stamped with the instant of the first waypoint."""
    empty = np.empty(0)
    start_ns = int(trajectory.times_ns[0])
    velocities = trajectory.velocities
    points = [
        _make(
            "trajectory_msgs/msg/JointTrajectoryPoint",
            np.ascontiguousarray(position, np.float64),
            empty if velocities is None else np.ascontiguousarray(velocities[k], np.float64),
            empty,
            empty,
            _make("builtin_interfaces/msg/Duration", *divmod(int(instant_ns) - start_ns, NS_PER_S)),
        )
        for k, (instant_ns, position) in enumerate(zip(trajectory.times_ns, trajectory.positions, strict=True))
    ]
    return _make(JOINT_TRAJECTORY, _header(start_ns), list(trajectory.names), points)


def string(text: str) -> Any:
    """Returns a String."""
    return _make(STRING, text)


def depth_image(instant_ns: int, camera: str, depth: np.ndarray) -> Any:
    """Returns an Image with encoding 32FC1 of (H, W) float32 [m], NaN where nothing was measured."""
    height, width = depth.shape
    data = np.ascontiguousarray(depth, "<f4").view(np.uint8).reshape(-1)
    return _make(IMAGE, _header(instant_ns, camera), height, width, "32FC1", 0, 4 * width, data)


def pose(instant_ns: int, frame: str, position: np.ndarray, quaternion: np.ndarray) -> Any:
    """Returns a PoseStamped; ``position`` is (3,) [m], ``quaternion`` (4,) as (x, y, z, w)."""
    place = _make("geometry_msgs/msg/Point", *np.asarray(position, float).tolist())
    turn = _make("geometry_msgs/msg/Quaternion", *np.asarray(quaternion, float).tolist())
    return _make(POSE, _header(instant_ns, frame), _make("geometry_msgs/msg/Pose", place, turn))


def diagnostics(instant_ns: int, name: str, text: str, values: Mapping[str, str]) -> Any:
    """Returns a DiagnosticArray of one status that is well."""
    pairs = [_make("diagnostic_msgs/msg/KeyValue", key, value) for key, value in values.items()]
    status = _make("diagnostic_msgs/msg/DiagnosticStatus", 0, name, text, "", pairs)
    return _make(DIAGNOSTICS, _header(instant_ns), [status])


def boolean(value: bool) -> Any:
    """Returns a Bool."""
    return _make(BOOL, value)


def clock(instant_ns: int) -> Any:
    """Returns a Clock."""
    return _make(CLOCK, _time(instant_ns))
