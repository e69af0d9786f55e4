"""Joint angles for tool poses of one simulated arm, by mink's differential inverse kinematics."""

from __future__ import annotations

import mink
import mujoco
import numpy as np

from dit_policy_ros.errors import WorldError

_SITE = {"left": "cali_left_site1", "right": "cali_right_site1"}
_TOOL_OFFSET_M = 0.005
"""The model's site lies this far beyond the point between the finger tips where objects are held."""
_TOLERANCE_M = 3e-3
_LARGEST_STEP_RAD = 0.15


class ArmKinematics:
    """Warm-started inverse kinematics of one arm. Keeps the last solution as the next start."""

    def __init__(self, model: mujoco.MjModel, side: str, start: np.ndarray) -> None:
        """Starts from the coordinates ``start``, (nq,)."""
        self._model = model
        self._configuration = mink.Configuration(model, q=start)
        self._task = mink.FrameTask(_SITE[side], "site", position_cost=1.0, orientation_cost=0.3, lm_damping=1e-4)
        self._posture = mink.PostureTask(model, cost=1e-4)
        self._posture.set_target(start)
        base = 0 if side == "left" else 8
        self._columns = np.arange(base, base + 6)
        self._others = np.setdiff1d(np.arange(model.nv), self._columns)
        self._limits = [mink.ConfigurationLimit(model)]

    def solve(self, position: np.ndarray, rotation: np.ndarray, iterations: int = 20) -> np.ndarray:
        """Returns the six joint angles that bring the tool to a pose, [rad].

        Args:
            position: (3,) between the finger tips, world frame, [m].
            rotation: (3, 3), x along the fingers, y along their closing, world frame.
            iterations: most steps before giving up.

        Raises:
            WorldError: the pose is out of reach.
        """
        site = position + rotation[:, 0] * _TOOL_OFFSET_M
        target = mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(rotation), site)
        self._task.set_target(target)
        for _ in range(iterations):
            error = self._task.compute_error(self._configuration)
            if np.linalg.norm(error[:3]) < 2e-4 and np.linalg.norm(error[3:]) < 2e-3:
                break
            velocity = mink.solve_ik(
                self._configuration, [self._task, self._posture], 1.0, "daqp", damping=1e-8, limits=self._limits
            )
            velocity[self._others] = 0.0
            # Short steps stay on the branch of the wrist that the path began on.
            velocity *= min(1.0, _LARGEST_STEP_RAD / (np.abs(velocity).max() + 1e-9))
            self._configuration.integrate_inplace(velocity, 1.0)
        error = self._task.compute_error(self._configuration)
        if np.linalg.norm(error[:3]) > _TOLERANCE_M:
            where = ", ".join(f"{value:.3f}" for value in position)
            raise WorldError(f"The arm cannot reach ({where}) m: {1e3 * np.linalg.norm(error[:3]):.1f} mm short.")
        return self._configuration.q[self._columns].copy()
