"""A process that needs little memory. To be called before it does anything else."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from dit_policy_ros.ros.environment import PROFILE, PROFILE_VARIABLES, SMALL_PROFILE

_M_ARENA_MAX = -8
"""From glibc's malloc.h."""
_ARENAS = 2
"""The middleware starts a dozen threads, and glibc would give each a heap of its own."""


def use_little_memory() -> None:
    """Limits the heaps and the shared memory of this process, and keeps MuJoCo from loading what renders.

    What a user has chosen otherwise stands. Not for a process that publishes images.
    """
    for variable in PROFILE_VARIABLES:
        profile = Path(os.environ.get(variable, ""))
        if profile.name == PROFILE:
            os.environ[variable] = str(profile.with_name(SMALL_PROFILE))
    os.environ.setdefault("MUJOCO_GL", "disable")
    # Other C libraries have no such call, and no such heaps.
    limit = getattr(ctypes.CDLL(None), "mallopt", None)
    if limit is not None and "MALLOC_ARENA_MAX" not in os.environ:
        limit(_M_ARENA_MAX, _ARENAS)
