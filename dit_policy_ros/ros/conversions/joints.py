"""Joint states by name."""

from __future__ import annotations

import array
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sensor_msgs.msg import JointState

from dit_policy_ros.errors import RobotError
from dit_policy_ros.ros.conversions.stamps import ns_to_time, time_to_ns


@dataclass(frozen=True)
class JointSample:
    """Some joints at one instant."""

    stamp_ns: int
    positions: Mapping[str, float]
    velocities: Mapping[str, float] = field(default_factory=dict)
    """May lack joints."""


def joint_state_to_sample(message: JointState, names: Sequence[str]) -> JointSample:
    """Returns the joints among ``names`` that the message holds, in whatever order it holds them.

    Whether all are there and finite is judged by who uses them.

    Raises:
        RobotError: a joint appears twice, or the fields have different lengths.
    """
    if len(set(message.name)) != len(message.name):
        twice = sorted({name for name in message.name if message.name.count(name) > 1})
        raise RobotError(f"Joint states name {', '.join(twice)} twice; two drivers publish the same joint.")
    if len(message.position) != len(message.name):
        raise RobotError(
            f"Joint states hold {len(message.position)} positions for {len(message.name)} names; "
            "every named joint needs a position."
        )
    if len(message.velocity) not in (0, len(message.name)):
        raise RobotError(
            f"Joint states hold {len(message.velocity)} velocities for {len(message.name)} names; "
            "give one for each joint, or none."
        )
    wanted = set(names)
    positions = {name: value for name, value in zip(message.name, message.position, strict=True) if name in wanted}
    # Drivers without velocity sensing send NaN: that is a missing value, not a fault.
    velocities = {
        name: value
        for name, value in zip(message.name, message.velocity, strict=False)
        if name in wanted and math.isfinite(value)
    }
    return JointSample(time_to_ns(message.header.stamp), positions, velocities)


def sample_to_joint_state(sample: JointSample) -> JointState:
    """Makes a message; velocities are sent only if every joint has one."""
    message = JointState(name=list(sample.positions), position=array.array("d", sample.positions.values()))
    message.header.stamp = ns_to_time(sample.stamp_ns)
    if sample.velocities.keys() >= sample.positions.keys():
        message.velocity = array.array("d", [sample.velocities[name] for name in sample.positions])
    return message
