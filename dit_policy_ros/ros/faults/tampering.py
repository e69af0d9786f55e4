"""What can happen to messages on their way: functions from a message to the messages that arrive, and when."""

from __future__ import annotations

import array
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

DELAY_S = 0.4
ANYWHERE_RAD = 2.0


@dataclass
class Tamperer:
    """Meddles with one stream while it is switched on. Messages are serialised."""

    message_type: type
    kind: str
    rng: random.Random
    kept: list[bytes] = field(default_factory=list)
    first_ns: int | None = None
    """When the first message was meddled with, by the system clock; None before."""

    def __call__(self, cdr: bytes) -> list[tuple[float, bytes]]:
        """Returns (delay in [s], message) of everything that arrives instead of ``cdr``."""
        self.first_ns = self.first_ns or time.time_ns()
        return KINDS[self.kind](self, cdr)


def _frozen(tamperer: Tamperer, cdr: bytes) -> list[tuple[float, bytes]]:
    tamperer.kept = tamperer.kept or [cdr]
    return [(0.0, tamperer.kept[0])]


def _reordered(tamperer: Tamperer, cdr: bytes) -> list[tuple[float, bytes]]:
    """Every second message overtakes the one before it."""
    if not tamperer.kept:
        tamperer.kept = [cdr]
        return []
    before, tamperer.kept = tamperer.kept[0], []
    return [(0.0, cdr), (0.0, before)]


def _corrupted(tamperer: Tamperer, cdr: bytes) -> list[tuple[float, bytes]]:
    """Turns bits over behind the header, as a broken sender would: the middleware itself checks its packets."""
    changed = bytearray(cdr)
    for _ in range(8):
        changed[tamperer.rng.randrange(min(24, len(changed) - 1), len(changed))] ^= 1 << tamperer.rng.randrange(8)
    return [(0.0, bytes(changed))]


def _with_value(value: float) -> Callable[[Tamperer, bytes], list[tuple[float, bytes]]]:
    def tamper(tamperer: Tamperer, cdr: bytes) -> list[tuple[float, bytes]]:
        message = deserialize_message(cdr, tamperer.message_type)
        if isinstance(message, JointState) and len(message.position):
            message.position[tamperer.rng.randrange(len(message.position))] = value
        if isinstance(message, JointTrajectory) and message.points:
            point = message.points[tamperer.rng.randrange(len(message.points))]
            point.positions[tamperer.rng.randrange(len(point.positions))] = value
        return [(0.0, serialize_message(message))]

    return tamper


def _arbitrary(tamperer: Tamperer, cdr: bytes) -> list[tuple[float, bytes]]:
    """A policy that is out of its mind: well-formed, and anywhere at every step."""
    message = deserialize_message(cdr, JointTrajectory)
    for point in message.points:
        point.positions = array.array("d", (tamperer.rng.uniform(-ANYWHERE_RAD, ANYWHERE_RAD) for _ in point.positions))
    return [(0.0, serialize_message(message))]


def _wrong_names(tamperer: Tamperer, cdr: bytes) -> list[tuple[float, bytes]]:
    message = deserialize_message(cdr, tamperer.message_type)
    names = list(message.name if isinstance(message, JointState) else message.joint_names)
    if names:
        names[tamperer.rng.randrange(len(names))] = "nobody"
    if isinstance(message, JointState):
        message.name = names
    else:
        message.joint_names = names
    return [(0.0, serialize_message(message))]


def _wrong_sizes(tamperer: Tamperer, cdr: bytes) -> list[tuple[float, bytes]]:
    message = deserialize_message(cdr, tamperer.message_type)
    if isinstance(message, JointState):
        message.position = array.array("d", message.position[:-1])
    else:
        for point in message.points:
            point.positions = array.array("d", point.positions[:-1])
    return [(0.0, serialize_message(message))]


KINDS: Mapping[str, Callable[[Tamperer, bytes], list[tuple[float, bytes]]]] = {
    "dropped": lambda tamperer, cdr: [],
    "frozen": _frozen,
    "delayed": lambda tamperer, cdr: [(DELAY_S, cdr)],
    "duplicated": lambda tamperer, cdr: [(0.0, cdr), (0.0, cdr), (0.05, cdr)],
    "reordered": _reordered,
    "corrupted": _corrupted,
    "not a number": _with_value(math.nan),
    "infinite": _with_value(math.inf),
    "huge": _with_value(1e12),
    "wrong names": _wrong_names,
    "wrong sizes": _wrong_sizes,
    "arbitrary": _arbitrary,
}
VALUE_KINDS = ("not a number", "infinite", "huge", "wrong names", "wrong sizes")
"""Only for messages with joints in them."""
CHUNK_KINDS = ("arbitrary",)
"""Only for chunks."""
