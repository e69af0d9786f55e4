"""Entries of a ``policy.yaml`` that change how a family samples: ``cache``, ``tracking`` and ``compose``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.caching.block_wise import BlockWiseOptions
from dit_policy_ros.policy.caching.family import options_of
from dit_policy_ros.policy.caching.forecast import TaylorSeerOptions
from dit_policy_ros.policy.guidance.joint_speed import SpeedTracking
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.strict_yaml import fields_of, number, positive


def whole(value: Any, where: str) -> int:
    """Returns a whole number above 0.

    Raises:
        CheckpointError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{where} is '{value}'; it must be a whole number above 0.")
    return value


def cache_options(data: Any, where: str) -> TaylorSeerOptions | BlockWiseOptions:
    """Reads ``cache``: a ``method`` and its options.

    Raises:
        CheckpointError: a value is not a whole number.
        PolicyError: the method or an option is unknown, or does not work.
    """
    options = ("method", "interval", "warmup", "order", "updates", "selected")
    values = fields_of(data, where, CheckpointError, (), options)
    for name, value in values.items():
        if name != "method" and (isinstance(value, bool) or not isinstance(value, int)):
            raise CheckpointError(f"{where}.{name} is '{value}'; it must be a whole number.")
    return options_of(values)


def tracking_options(
    data: Any, where: str, robot: RobotSpec, names: tuple[str, ...], control_hz: float
) -> SpeedTracking:
    """Reads ``tracking``: ``scale``, ``limit``, ``repeats`` and ``speed``, a share of the robot's speed limits.

    Args:
        names: channels of the actions.

    Raises:
        CheckpointError: a value is not a number.
        PolicyError: a value does not work.
    """
    values = fields_of(data, where, CheckpointError, (), ("scale", "limit", "repeats", "speed"))
    speed = positive(values.pop("speed", 1.0), f"{where}.speed", CheckpointError)
    if "repeats" in values:
        whole(values["repeats"], f"{where}.repeats")
    for name in ("scale", "limit"):
        if name in values:
            values[name] = number(values[name], f"{where}.{name}", CheckpointError)
    limits = dict(zip(robot.names, robot.velocity, strict=True))
    return SpeedTracking(np.array([limits[name] for name in names]) * speed / control_hz, **values)


class Composition(NamedTuple):
    """Which policy joins, and how much each counts."""

    directory: Path
    weights: tuple[float, float]
    """Of this policy and of the other one."""


def compose_options(data: Any, where: str, directory: Path) -> Composition:
    """Reads ``compose``: ``policy``, a directory relative to this one, and ``weights``.

    Raises:
        CheckpointError: an entry is missing or malformed, or there is no policy.
    """
    values = fields_of(data, where, CheckpointError, ("policy", "weights"))
    weights: Any = values["weights"]
    if not isinstance(weights, list) or len(weights) != 2:
        raise CheckpointError(f"{where}.weights is '{weights}'; it must be two numbers, of this policy and the other.")
    other = directory / str(values["policy"])
    if not (other / "policy.yaml").is_file():
        raise CheckpointError(f"{where}.policy: {other} is not a policy directory; it has no policy.yaml.")
    ours, theirs = (number(weight, f"{where}.weights", CheckpointError) for weight in weights)
    return Composition(other, (ours, theirs))


def without_own_ways(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the description of a policy that joins another, which settles how it samples.

    Raises:
        CheckpointError: it is of another kind, or says itself how it samples.
    """
    values = dict(data)
    if values.pop("kind", None) != "family":
        raise CheckpointError(f"{where}: only policies of kind 'family' can be composed.")
    settled = [name for name in ("cache", "tracking", "compose", "continuity", "prefix") if name in values]
    if settled:
        raise CheckpointError(f"{where}: a policy that joins another may not have {settled[0]}; remove it there.")
    return values
