"""Chunks and joint states of an end-effector policy, for a robot whose controllers take joints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dit_policy_ros.actions.pose import transform
from dit_policy_ros.actions.rotation import matrix_from_rot6d, rot6d_from_matrix
from dit_policy_ros.controllers import POSE_CHANNELS
from dit_policy_ros.errors import RobotError
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.sim.pose_solver import PoseSolver
from dit_policy_ros.types import ActionChunk


class PoseChunks:
    """Translates between pose channels, ``<arm>_eef_pos_x`` and so on, and joints. Other joints keep their names."""

    def __init__(self, robot: RobotSpec) -> None:
        """Loads the robot's model.

        Raises:
            RobotError: the robot has no ``kinematics``, or its model cannot be used.
        """
        if robot.kinematics is None:
            raise RobotError(f"{robot.name} has no kinematics; inverse kinematics needs a model in its YAML.")
        self._robot = robot
        self._solver = PoseSolver(robot.kinematics)
        self._arms = tuple(robot.kinematics.tips)
        self.kept = tuple(name for name in robot.names if name not in self._solver.joints)
        """Joints that a pose does not determine, such as grippers."""

    @property
    def names(self) -> tuple[str, ...]:
        """Channels of the end-effector policy: poses arm after arm, then what is kept."""
        poses = tuple(f"{arm}_{channel}" for arm in self._arms for channel in POSE_CHANNELS)
        return poses + self.kept

    def state(self, positions: Mapping[str, float]) -> dict[str, float]:
        """Returns pose channels and kept joints for joint positions."""
        poses = self._solver.poses(positions)
        values = np.concatenate([_channels(poses[arm]) for arm in self._arms])
        kept = [positions[name] for name in self.kept]
        return dict(zip(self.names, [*values.tolist(), *kept], strict=True))

    def to_poses(self, chunk: ActionChunk) -> ActionChunk:
        """Returns a chunk of joints as one of poses, as a committed prefix needs it."""
        rows = [list(self.state(dict(zip(chunk.names, row, strict=True))).values()) for row in chunk.actions.tolist()]
        return replace(chunk, names=self.names, actions=np.array(rows))

    def to_joints(self, chunk: ActionChunk, measured: Mapping[str, float]) -> ActionChunk:
        """Returns a chunk of poses as one of joints; the search begins at the measured joints.

        Raises:
            RobotError: a channel is missing, or a pose is out of reach.
        """
        missing = [name for name in self.names if name not in chunk.names]
        if missing:
            raise RobotError(f"The chunk of poses lacks {', '.join(missing)}.")
        if not np.isfinite(chunk.actions).all():
            raise RobotError("The chunk of poses holds a value that is not finite.")
        columns = {name: chunk.names.index(name) for name in self.names}
        rows, start = [], measured
        for action in chunk.actions:
            targets = {
                arm: _pose(action[[columns[f"{arm}_{channel}"] for channel in POSE_CHANNELS]]) for arm in self._arms
            }
            joints = self._solver.solve(targets, start) | {name: float(action[columns[name]]) for name in self.kept}
            rows.append([joints[name] for name in self._robot.names])
            start = None
        return replace(chunk, names=self._robot.names, actions=np.array(rows))


def _channels(pose: np.ndarray) -> np.ndarray:
    return np.concatenate([pose[:3, 3], rot6d_from_matrix(pose[:3, :3])])


def _pose(channels: np.ndarray) -> np.ndarray:
    return transform(channels[:3], matrix_from_rot6d(channels[3:]))
