"""Environment variables that keep a graph on this machine and let large images through."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping

from dit_policy_ros.resources import share_directory

PROFILE, SMALL_PROFILE = "fastdds_shm.xml", "fastdds_small.xml"
"""In config/dds: for processes that publish images, and for others."""
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Fast DDS changed the name with version 3, which came with Kilted; setting both gives a warning there."""


def local_environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Returns ``base`` with discovery limited to this machine and the shared-memory profile switched on.

    What a user has set already stands. Middlewares other than Fast DDS ignore the profile.
    """
    profile = str(share_directory() / "config" / "dds" / PROFILE)
    defaults = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", _profile_variable(base): profile}
    return {**defaults, **base}


def _profile_variable(base: Mapping[str, str]) -> str:
    if "ROS_DISTRO" in base:
        is_old = base["ROS_DISTRO"] in ("humble", "iron", "jazzy")
    else:
        is_old = any(importlib.metadata.distributions(name="ros-fastrtps"))
    return PROFILE_VARIABLES[is_old]
