"""How close commands came to the robot's limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.actions.limits import KINDS
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.types import NS_PER_S, Trajectory


@dataclass(frozen=True)
class Margin:
    """The closest that anything came to one kind of limit."""

    share: float = 1.0
    """What was left: 0 at the limit, 1 as far away as can be; negative beyond it."""
    joint: str = ""


class Margins:
    """Closest margins of everything that was sent since the last ``clear``."""

    def __init__(self, robot: RobotSpec) -> None:
        self._joints = {joint.name: joint for joint in robot.joints}
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self.closest: dict[str, Margin] = {kind: Margin() for kind in KINDS}
        """Kind of limit to the closest margin."""

    def note(self, sent: Sequence[Trajectory]) -> None:
        """Takes the trajectories of one command."""
        for trajectory in sent:
            joints = [self._joints[name] for name in trajectory.names]
            lower, upper = (np.array([getattr(joint, end) for joint in joints]) for end in ("lower", "upper"))
            positions = trajectory.positions
            room = np.minimum(upper - positions, positions - lower).min(axis=0) / (0.5 * (upper - lower))
            self._note("position", room, trajectory.names)
            if trajectory.velocities is None:
                continue
            most = np.array([joint.velocity for joint in joints])
            self._note("velocity", 1.0 - np.abs(trajectory.velocities).max(axis=0) / most, trajectory.names)
            if len(trajectory.times_ns) > 1:
                accelerations, jerks = _hardest(trajectory)
                most = np.array([joint.acceleration for joint in joints])
                self._note("acceleration", 1.0 - accelerations / most, trajectory.names)
                self._note("jerk", 1.0 - jerks / np.array([joint.jerk for joint in joints]), trajectory.names)

    def _note(self, kind: str, shares: np.ndarray, names: Sequence[str]) -> None:
        worst = int(np.argmin(shares))
        if shares[worst] < self.closest[kind].share:
            self.closest[kind] = Margin(float(shares[worst]), names[worst])


def _hardest(trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Returns the largest acceleration and jerk of the cubics between the waypoints, (J,) each."""
    steps_s = np.diff(trajectory.times_ns)[:, None] / NS_PER_S
    slopes = np.diff(trajectory.positions, axis=0) / steps_s
    begin, end = trajectory.velocities[:-1], trajectory.velocities[1:]
    first = np.abs(3.0 * slopes - 2.0 * begin - end)
    last = np.abs(3.0 * slopes - begin - 2.0 * end)
    jerks = np.abs(begin + end - 2.0 * slopes) * (6.0 / steps_s**2)
    return (np.maximum(first, last) * (2.0 / steps_s)).max(axis=0), jerks.max(axis=0)
