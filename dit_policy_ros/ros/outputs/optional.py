"""Message types that not every installation of ROS 2 has."""

from __future__ import annotations

import importlib
from typing import Any

from dit_policy_ros.errors import ConfigError


def optional_type(module: str, name: str, controller_type: str) -> Any:
    """Returns a message or action class.

    Raises:
        ConfigError: its package is not installed.
    """
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as problem:
        package = module.partition(".")[0]
        raise ConfigError(
            f"A controller of type {controller_type} needs {package}, which is not installed "
            f"(apt install ros-$ROS_DISTRO-{package.replace('_', '-')}); or choose another type in the robot YAML."
        ) from problem
