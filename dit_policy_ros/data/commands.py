"""What the controllers were told, and what that means at any instant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dit_policy_ros.actions.rotation import matrix_from_quaternion, rot6d_from_matrix
from dit_policy_ros.controllers import Controller
from dit_policy_ros.data import messages
from dit_policy_ros.data.joint_history import interpolate
from dit_policy_ros.data.scratch import ScratchTable
from dit_policy_ros.errors import BagError, PolicyError
from dit_policy_ros.types import Trajectory

COMMAND_TYPES: Mapping[str, str] = {
    "joint_trajectory": messages.JOINT_TRAJECTORY,
    "forward_command": messages.FLOAT64_ARRAY,
    "pose": messages.POSE,
}
"""Type of controller to the message that states positions; others state speeds, or are actions, and are not read."""


@dataclass(frozen=True)
class Command:
    """One trajectory as it was sent to one controller."""

    sent_ns: int
    trajectory: Trajectory


class CommandHistory(Sequence[Command]):
    """What one controller was sent, in that order; a long history lies on disk, since an hour has 200 000 commands.

    Velocities are kept where every command has them.
    """

    def __init__(self, joints: tuple[str, ...]) -> None:
        self._joints = joints
        self._sent_ns, self._ends = ScratchTable(dtype=np.int64), ScratchTable(dtype=np.int64)
        self._times_ns, self._positions = ScratchTable(dtype=np.int64), ScratchTable(len(joints))
        self._velocities: ScratchTable | None = ScratchTable(len(joints))
        """None from the first command without any on."""
        self._spliced_ns, self._spliced = ScratchTable(dtype=np.int64), ScratchTable(len(joints))
        """Waypoints that no command has replaced so far; their instants increase."""

    def add(self, command: Command) -> None:
        """Appends a command for the joints of the controller, in their order."""
        trajectory = command.trajectory
        self._sent_ns.append(command.sent_ns)
        self._times_ns.extend(trajectory.times_ns)
        self._ends.append(len(self._times_ns))
        self._positions.extend(trajectory.positions)
        if trajectory.velocities is None:
            self._velocities = None
        if self._velocities is not None:
            self._velocities.extend(trajectory.velocities)
        kept = self._spliced_ns.first_at_or_after(int(trajectory.times_ns[0]))
        for table, rows in ((self._spliced_ns, trajectory.times_ns), (self._spliced, trajectory.positions)):
            table.truncate(kept)
            table.extend(rows)

    def __len__(self) -> int:
        return len(self._sent_ns)

    def __getitem__(self, index: int | slice) -> Command | tuple[Command, ...]:
        if isinstance(index, slice):
            return tuple(self[k] for k in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"There are {len(self)} commands; {index} is not among them.")
        index %= len(self)
        ends = self._ends.array()
        rows = slice(int(ends[index - 1]) if index else 0, int(ends[index]))
        times_ns, positions = (table.array()[rows].copy() for table in (self._times_ns, self._positions))
        speeds = None if self._velocities is None else self._velocities.array()[rows].copy()
        return Command(int(self._sent_ns.array()[index]), Trajectory(self._joints, times_ns, positions, speeds))

    def spliced(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the waypoints that none replaced, see ``spliced``; valid until the next command is added."""
        return self._spliced_ns.array(), self._spliced.array()


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
    if isinstance(commands, CommandHistory):
        return commands.spliced()
    history = CommandHistory(commands[0].trajectory.names)
    for command in commands:
        history.add(command)
    return history.spliced()


def read_command(log_ns: int, message: Any, controller: Controller, where: str) -> Command:
    """Returns what a message asks of a controller, one of ``COMMAND_TYPES``.

    Raises:
        BagError: it names other joints, lacks positions, holds what is not finite, or its times do not increase.
    """
    if controller.type == "joint_trajectory":
        return Command(log_ns, _trajectory(log_ns, message, controller, where))
    values = read_pose(message, where) if controller.type == "pose" else np.asarray(message.data, dtype=np.float64)
    if len(values) != len(controller.joints):
        raise BagError(
            f"{where}: a command has {len(values)} values, but {controller.name} moves {len(controller.joints)} "
            "joints. Check the controllers in the robot YAML."
        )
    if not np.isfinite(values).all():
        raise BagError(f"{where}: a command holds a value that is not finite; leave this episode out.")
    # These controllers go there at once; a header stamp, if there is one, is that of sending.
    return Command(log_ns, Trajectory(controller.joints, np.array([log_ns]), values[None]))


def read_pose(message: Any, where: str) -> np.ndarray:
    """Returns position and the first two columns of the rotation of a PoseStamped, (9,).

    Raises:
        BagError: its quaternion is zero.
    """
    place, turn = message.pose.position, message.pose.orientation
    try:
        matrix = matrix_from_quaternion(np.array([turn.x, turn.y, turn.z, turn.w]))
    except PolicyError as problem:
        raise BagError(f"{where}: a pose has a quaternion of zeros; the driver is at fault.") from problem
    return np.concatenate([[place.x, place.y, place.z], rot6d_from_matrix(matrix)])


def _trajectory(log_ns: int, message: Any, controller: Controller, where: str) -> Trajectory:
    points = message.points
    if not points:
        raise BagError(f"{where}: a trajectory has no points.")
    if set(message.joint_names) != set(controller.joints) or len(message.joint_names) != len(controller.joints):
        raise BagError(
            f"{where}: a trajectory names {', '.join(message.joint_names)}, but {controller.name} moves "
            f"{', '.join(controller.joints)}. Check the controllers in the robot YAML."
        )
    if any(len(point.positions) != len(message.joint_names) for point in points):
        raise BagError(f"{where}: a trajectory point lacks positions; only position trajectories are supported.")
    order = [message.joint_names.index(name) for name in controller.joints]
    positions = np.array([point.positions for point in points])[:, order]
    if not np.isfinite(positions).all():
        raise BagError(f"{where}: a trajectory holds a value that is not finite; leave this episode out.")
    with_velocities = all(len(point.velocities) == len(order) for point in points)
    velocities = np.array([point.velocities for point in points])[:, order] if with_velocities else None
    offsets_ns = np.array([messages.duration_ns(point.time_from_start) for point in points], dtype=np.int64)
    if (np.diff(offsets_ns) <= 0).any():
        raise BagError(f"{where}: the times of a trajectory's points do not increase.")
    # A controller starts a trajectory without a stamp when it arrives.
    start_ns = messages.stamp_ns(message) or log_ns
    return Trajectory(controller.joints, start_ns + offsets_ns, positions, velocities)
