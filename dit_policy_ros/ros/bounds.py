"""What may come in at most: sizes and rates per message type. More is dropped before it is taken apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, Float64, Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.ros.conversions.trajectories import MAX_POINTS

MAX_JOINTS = 256
MAX_IMAGE_BYTES = 64 * 2**20
MAX_TEXT_BYTES = 64 * 2**10
MAX_RAW_BYTES = 2 * MAX_IMAGE_BYTES
"""Of a serialised message that is only recorded."""


@dataclass(frozen=True)
class Bound:
    """Of one message type."""

    most_hz: float
    size: Callable[[Any], int] = lambda message: 0
    largest: int = 0
    unit: str = ""


BOUNDS: Mapping[type, Bound] = {
    # A flood must never hide an e-stop; a Bool costs next to nothing.
    Bool: Bound(math.inf),
    Float64: Bound(200.0),
    Float64MultiArray: Bound(2000.0, lambda message: len(message.data), MAX_JOINTS, "values"),
    Clock: Bound(20_000.0),
    String: Bound(100.0, lambda message: len(message.data), MAX_TEXT_BYTES, "characters"),
    JointState: Bound(4000.0, lambda message: max(len(message.name), len(message.position)), MAX_JOINTS, "joints"),
    JointTrajectory: Bound(
        500.0,
        lambda message: max(len(message.points), math.ceil(len(message.joint_names) * MAX_POINTS / MAX_JOINTS)),
        MAX_POINTS,
        f"points (or {MAX_JOINTS} joints)",
    ),
    Image: Bound(1000.0, lambda message: len(message.data), MAX_IMAGE_BYTES, "bytes"),
    CompressedImage: Bound(1000.0, lambda message: len(message.data), MAX_IMAGE_BYTES, "bytes"),
}
OTHERS = Bound(2000.0)
RAW = Bound(math.inf, len, MAX_RAW_BYTES, "bytes")
"""A recorder takes every rate and has a queue of its own."""


def bound_of(message_type: type, raw: bool) -> Bound:
    """Returns the bound of an input."""
    return RAW if raw else BOUNDS.get(message_type, OTHERS)


def too_large(bound: Bound, message: Any) -> str:
    """Returns '' for a message of a fair size, else the reason to drop it."""
    size = bound.size(message)
    if size <= bound.largest or not bound.largest:
        return ""
    return f"too large: {size} {bound.unit}, {bound.largest} at most are taken"
