"""ROS parameters declared from a frozen dataclass: its fields are the one description of names, types and ranges."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from dit_policy_ros.errors import ConfigError

T = TypeVar("T")


def parameter(
    default: Any, description: str, unit: str = "", lower: float | None = None, upper: float | None = None
) -> Any:
    """Returns a dataclass field that is a ROS parameter.

    Args:
        default: bool, int, float, str, or a tuple of one of these; its type is the parameter's.
        lower: least allowed number; needs ``upper``.
        upper: largest allowed number.
    """
    text = f"{description} [{unit}]" if unit else description
    return dataclasses.field(default=default, metadata={"description": text, "range": (lower, upper)})


def declare_parameters(node: Node, options: type) -> None:
    """Declares every field of a dataclass of ``parameter`` fields on a node.

    Raises:
        ConfigError: an override has the wrong type or is out of range.
    """
    for item in dataclasses.fields(options):
        default = list(item.default) if isinstance(item.default, tuple) else item.default
        try:
            node.declare_parameter(item.name, default, _descriptor(item))
        except (InvalidParameterTypeException, InvalidParameterValueException) as problem:
            raise ConfigError(f"Parameter {item.name} ({item.metadata['description']}): {problem}.") from problem


def read_parameters(node: Node, options: type[T]) -> T:
    """Returns the dataclass filled with the node's present parameter values.

    Raises:
        ConfigError: the node was given a parameter it does not have.
    """
    # rclpy drops unknown overrides without a word, and has no public way to list them.
    unknown = sorted(name for name in node._parameter_overrides if not node.has_parameter(name))
    known = [item.name for item in dataclasses.fields(options)]
    if unknown:
        raise ConfigError(f"Unknown parameter {', '.join(unknown)}. {node.get_name()} has: {', '.join(known)}.")
    return options(**{name: _plain(node.get_parameter(name).value) for name in known})


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _descriptor(item: dataclasses.Field) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=item.metadata["description"])
    lower, upper = item.metadata["range"]
    if lower is not None and isinstance(item.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(lower), to_value=float(upper))]
    elif lower is not None:
        descriptor.integer_range = [IntegerRange(from_value=int(lower), to_value=int(upper))]
    return descriptor
