"""How close commands came to the robot's limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
        self.closest: dict[str, Margin] = {kind: Margin() for kind in ("position", "velocity", "acceleration")}
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
                steps_s = np.diff(trajectory.times_ns)[:, None] / NS_PER_S
                slopes = np.abs(np.diff(trajectory.velocities, axis=0) / steps_s).max(axis=0)
                most = np.array([joint.acceleration for joint in joints])
                self._note("acceleration", 1.0 - slopes / most, trajectory.names)

    def _note(self, kind: str, shares: np.ndarray, names: Sequence[str]) -> None:
        worst = int(np.argmin(shares))
        if shares[worst] < self.closest[kind].share:
            self.closest[kind] = Margin(float(shares[worst]), names[worst])
