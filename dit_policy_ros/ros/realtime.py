"""Real-time priority for a process whose periods must not wait for others."""

from __future__ import annotations

import os
from pathlib import Path

from dit_policy_ros.errors import ConfigError


def take_priority(priority: int) -> None:
    """Gives every thread of this process a priority of SCHED_FIFO; 0 gives it back.

    Threads that begin later have the priority of the one that started them.

    Raises:
        ConfigError: this process may not have it.
    """
    policy = os.SCHED_FIFO if priority else os.SCHED_OTHER
    for thread in [int(path.name) for path in Path("/proc/self/task").iterdir()]:
        try:
            if priority or os.sched_getscheduler(thread) == os.SCHED_FIFO:
                os.sched_setscheduler(thread, policy, os.sched_param(priority))
        except ProcessLookupError:
            continue  # It ended meanwhile.
        except PermissionError as problem:
            raise ConfigError(
                f"realtime_priority is {priority}, which this user may not take. Allow it with the line "
                f"'{os.environ.get('USER', 'USER')} - rtprio {priority}' in /etc/security/limits.conf and a new login, "
                "or set it to 0."
            ) from problem
