"""A robot's model as the guards see it: where its parts are for given joint positions."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from dit_policy_ros.calibration import Kinematics
from dit_policy_ros.errors import RobotError
from dit_policy_ros.sim.kinematics import load_model

_JOINT, _BODY, _SITE = mujoco.mjtObj.mjOBJ_JOINT, mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_SITE


class RobotModel:
    """The model, moved by the robot's joints. Not thread-safe."""

    def __init__(self, kinematics: Kinematics, names: Sequence[str]) -> None:
        """Loads the model; objects of the scene do not collide in it.

        Args:
            names: the robot's joints in the order of ``move``.

        Raises:
            RobotError: the model cannot be loaded, or lacks something that the robot description names.
        """
        self.model = load_model(kinematics.model)
        self.data = mujoco.MjData(self.model)
        self.joints = {name: self._id(_JOINT, joint) for name, joint in kinematics.joints.items()}
        """Joint of the robot to joint of the model."""
        self.tips = {arm: self._id(_SITE, site) for arm, site in kinematics.tips.items()}
        """Arm to site."""
        order = [(names.index(name), name) for name in kinematics.joints if name in names]
        self.columns = np.array([column for column, _ in order], dtype=np.int64)
        """Columns of ``move`` that the model knows."""
        self._places = np.array([self.model.jnt_qposadr[self.joints[name]] for _, name in order], dtype=np.int64)
        self.freedoms = np.array([self.model.jnt_dofadr[self.joints[name]] for _, name in order], dtype=np.int64)
        """Degree of freedom of each of ``columns``."""
        self._fingers = [
            (names.index(name), self.model.jnt_qposadr[self._id(_JOINT, joint)], closed, opened)
            for name, joints in kinematics.fingers.items()
            for joint, (closed, opened) in joints.items()
        ]
        self.objects = frozenset(self._id(_BODY, body) for body in kinematics.objects)
        """Bodies that are handled, and may be touched."""
        self.touching = frozenset(self._id(_BODY, body) for body in kinematics.touching)
        """Bodies that may touch each other."""

    def move(self, positions: np.ndarray) -> None:
        """Puts all parts where joint positions, (J,), bring them; joints that the model lacks change nothing."""
        self.data.qpos[self._places] = positions[self.columns]
        for column, place, closed, opened in self._fingers:
            self.data.qpos[place] = closed + (opened - closed) * positions[column]
        mujoco.mj_kinematics(self.model, self.data)

    def links(self) -> np.ndarray:
        """Returns for each body the robot's joint that moves it, as an index into ``columns``, or -1, (nbody,)."""
        owner = {int(self.model.jnt_bodyid[joint]): k for k, joint in enumerate(self._ordered())}
        links = np.full(self.model.nbody, -1)
        for body in range(1, self.model.nbody):
            links[body] = owner.get(body, links[self.model.body_parentid[body]])
        return links

    def parents(self) -> np.ndarray:
        """Returns for each of ``columns`` the joint before it in the chain, or -1."""
        links = self.links()
        return np.array([links[self.model.body_parentid[self.model.jnt_bodyid[joint]]] for joint in self._ordered()])

    def reaches(self) -> np.ndarray:
        """Returns for each of ``columns`` how far from its axis the parts it moves can be at most, [m]."""
        model, links = self.model, self.links()
        reaches = np.zeros(len(self.columns))
        for geom in range(model.ngeom):
            body = int(model.geom_bodyid[geom])
            length = float(np.linalg.norm(model.geom_pos[geom]) + model.geom_rbound[geom])
            while body > 0 and links[body] >= 0:
                slides = [j for j in range(model.njnt) if model.jnt_bodyid[j] == body and model.jnt_type[j] == 2]
                length += sum(float(np.abs(model.jnt_range[j]).max()) for j in slides)
                joint = self._ordered()[links[body]]
                if int(model.jnt_bodyid[joint]) == body:
                    at_axis = length + float(np.linalg.norm(model.jnt_pos[joint]))
                    reaches[links[body]] = max(reaches[links[body]], at_axis)
                length += float(np.linalg.norm(model.body_pos[body]))
                body = int(model.body_parentid[body])
        return reaches

    def _ordered(self) -> list[int]:
        return [int(self.model.dof_jntid[freedom]) for freedom in self.freedoms]

    def _id(self, kind: mujoco.mjtObj, name: str) -> int:
        index = mujoco.mj_name2id(self.model, kind, name)
        if index < 0:
            raise RobotError(f"The robot's model has no '{name}', which kinematics names; look the name up there.")
        return index
