"""What the controllers were told, and what that means at any instant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.data.joint_history import interpolate
from dit_policy_ros.errors import BagError
from dit_policy_ros.types import Trajectory


@dataclass(frozen=True)
class Command:
    """One trajectory as it was sent to one controller."""

    sent_ns: int
    trajectory: Trajectory


def targets_at(times_ns: np.ndarray, commands: Sequence[Command], what: str) -> np.ndarray:
    """Returns the positions that a controller was asked for, (len(times_ns), joints).

    A command replaces what was asked before from its first waypoint on. Linear between waypoints; constant before
    the first and after the last.

    Args:
        times_ns: (M,) int64.
        commands: of one controller, in the order they were sent.
        what: name of the controller, for the error text.

    Raises:
        BagError: there are no commands.
    """
    if not commands:
        raise BagError(f"{what} was sent no trajectory in this bag; record its command topic as well.")
    return interpolate(times_ns, *spliced(commands))


def spliced(commands: Sequence[Command]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the waypoints of all commands that none replaced: instants (N,) int64 and positions (N, joints)."""
    kept_ns: list[np.ndarray] = []
    kept: list[np.ndarray] = []
    until_ns = np.iinfo(np.int64).max
    for command in reversed(commands):
        times_ns = command.trajectory.times_ns
        live = times_ns < until_ns
        kept_ns.append(times_ns[live])
        kept.append(command.trajectory.positions[live])
        until_ns = min(until_ns, int(times_ns[0]))
    return np.concatenate(kept_ns[::-1]), np.concatenate(kept[::-1])
