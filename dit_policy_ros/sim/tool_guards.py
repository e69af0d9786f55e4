"""Objects to motions in which a hand is too fast, or leaves its part of the room."""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np

from dit_policy_ros.actions.motion import Motion
from dit_policy_ros.runtime.guard import Finding
from dit_policy_ros.sim.robot_model import RobotModel

_OUTSIDE_M = 1e-4
"""How much farther out a hand may get that is outside from the beginning."""


class ToolSpeedGuard:
    """Keeps the tips below a speed, by the model's Jacobian at every knot."""

    name = "tool speed"

    def __init__(self, model: RobotModel, most_m_s: float, mode: str = "slow") -> None:
        self.mode = mode
        self._robot, self._most = model, most_m_s

    def check(self, motion: Motion) -> Finding | None:
        """See ``Guard``."""
        robot, model, data = self._robot, self._robot.model, self._robot.data
        jacobian, fastest, worst = np.zeros((3, model.nv)), 0.0, (0, "")
        if not np.isfinite(motion.positions).all() or not np.isfinite(motion.velocities).all():
            return Finding(0, "joint positions are not finite")
        for knot, (positions, velocities) in enumerate(zip(motion.positions, motion.velocities, strict=True)):
            robot.move(positions)
            mujoco.mj_comPos(model, data)
            for arm, site in robot.tips.items():
                mujoco.mj_jacSite(model, data, jacobian, None, site)
                speed = float(np.linalg.norm(jacobian[:, robot.freedoms] @ velocities[robot.columns]))
                if speed > fastest:
                    fastest, worst = speed, (knot, arm)
        if fastest <= self._most:
            return None
        text = f"the {worst[1]} hand would move at {fastest:.2f} m/s (limit {self._most:g} m/s)"
        return Finding(worst[0], text, self._most / fastest)


class WorkspaceGuard:
    """Keeps each tip inside a box in the world."""

    name = "workspace"

    def __init__(self, model: RobotModel, boxes: Mapping[str, np.ndarray], mode: str = "stop") -> None:
        """Sets the boxes.

        Args:
            boxes: arm to (2, 3), lower and upper corner, [m].
        """
        self.mode = mode
        self._robot, self._boxes = model, dict(boxes)

    def check(self, motion: Motion) -> Finding | None:
        """See ``Guard``."""
        least: dict[str, float] = {}
        for knot, positions in enumerate(motion.positions):
            self._robot.move(positions)
            for arm, (lower, upper) in self._boxes.items():
                tip = self._robot.data.site_xpos[self._robot.tips[arm]]
                outside = float(np.maximum(lower - tip, tip - upper).max())
                allowed = least.setdefault(arm, max(0.0, outside + _OUTSIDE_M) if outside > 0.0 else 0.0)
                if not outside <= allowed:
                    return Finding(knot, f"the {arm} hand would be {1e3 * outside:.0f} mm outside of its box")
        return None
