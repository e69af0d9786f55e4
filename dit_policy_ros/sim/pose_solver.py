"""Between joints and poses of the hands, both ways, with the robot's MuJoCo model; the inverse by mink."""

from __future__ import annotations

from collections.abc import Mapping

import mink
import mujoco
import numpy as np

from dit_policy_ros.calibration import Kinematics
from dit_policy_ros.errors import RobotError
from dit_policy_ros.sim.kinematics import load_model

POSITION_TOLERANCE_M = 2e-3
ROTATION_TOLERANCE_RAD = 2e-2
CLOSE_M = 1e-4
CLOSE_RAD = 1e-3
LARGEST_STEP_RAD = 0.2
"""Of one iteration: short steps stay on the branch that the path began on."""


class PoseSolver:
    """Warm-started inverse kinematics of all arms. Not thread-safe; the last solution is the next start."""

    def __init__(self, kinematics: Kinematics) -> None:
        """Loads the model.

        Raises:
            RobotError: the model cannot be loaded, or lacks a joint or site that the description names.
        """
        self._model = load_model(kinematics.model)
        self._configuration = mink.Configuration(self._model)
        self._places, freedoms = {}, []
        for name, joint in kinematics.joints.items():
            index = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_JOINT, joint)
            if index < 0:
                raise RobotError(f"The model {kinematics.model} has no joint '{joint}'; see kinematics.joints.")
            self._places[name] = int(self._model.jnt_qposadr[index])
            freedoms.append(int(self._model.jnt_dofadr[index]))
        self._fixed = np.setdiff1d(np.arange(self._model.nv), freedoms)
        self._sites = dict(kinematics.tips)
        for site in self._sites.values():
            if mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_SITE, site) < 0:
                raise RobotError(f"The model {kinematics.model} has no site '{site}'; see kinematics.tips.")
        self._tasks = {
            arm: mink.FrameTask(site, "site", position_cost=1.0, orientation_cost=0.3, lm_damping=1e-4)
            for arm, site in self._sites.items()
        }
        self._posture = mink.PostureTask(self._model, cost=1e-4)
        self._limits = [mink.ConfigurationLimit(self._model)]

    @property
    def joints(self) -> tuple[str, ...]:
        """The robot's joints that move the hands."""
        return tuple(self._places)

    def poses(self, positions: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Returns arm to the pose of its hand in the world, (4, 4), [m]; joints not given stay where they were."""
        self._move(positions)
        return {
            arm: self._configuration.get_transform_frame_to_world(site, "site").as_matrix()
            for arm, site in self._sites.items()
        }

    def solve(self, targets: Mapping[str, np.ndarray], start: Mapping[str, float] | None = None) -> dict[str, float]:
        """Returns joint to position, [rad], for which the hands have their poses.

        Args:
            targets: arm to pose in the world, (4, 4); every arm of the model.
            start: where to search from; None goes on from the last solution.

        Raises:
            RobotError: a pose is out of reach.
        """
        if start is not None:
            self._move(start)
        self._posture.set_target(self._configuration.q)
        for arm, target in targets.items():
            self._tasks[arm].set_target(mink.SE3.from_matrix(target))
        for _ in range(30):
            if self._error() < 1.0:
                break
            tasks = [*self._tasks.values(), self._posture]
            velocity = mink.solve_ik(self._configuration, tasks, 1.0, "daqp", damping=1e-8, limits=self._limits)
            velocity[self._fixed] = 0.0
            velocity *= min(1.0, LARGEST_STEP_RAD / (np.abs(velocity).max() + 1e-9))
            self._configuration.integrate_inplace(velocity, 1.0)
        self._check()
        return {name: float(self._configuration.q[place]) for name, place in self._places.items()}

    def _move(self, positions: Mapping[str, float]) -> None:
        q = self._configuration.q.copy()
        for name, place in self._places.items():
            q[place] = positions.get(name, q[place])
        self._configuration.update(q)

    def _error(self) -> float:
        """The largest error of any hand, 1 where it is close enough."""
        errors = [task.compute_error(self._configuration) for task in self._tasks.values()]
        return max(
            max(float(np.linalg.norm(error[:3])) / CLOSE_M, float(np.linalg.norm(error[3:])) / CLOSE_RAD)
            for error in errors
        )

    def _check(self) -> None:
        for arm, task in self._tasks.items():
            error = task.compute_error(self._configuration)
            far_m, turned_rad = np.linalg.norm(error[:3]), np.linalg.norm(error[3:])
            if far_m > POSITION_TOLERANCE_M or turned_rad > ROTATION_TOLERANCE_RAD:
                raise RobotError(
                    f"The {arm} arm cannot reach a pose: {1e3 * far_m:.1f} mm and {turned_rad:.3f} rad short. "
                    "Is it in the frame of the model's world?"
                )
