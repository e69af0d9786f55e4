"""Where the hands of a robot are, by forward kinematics of its MuJoCo model."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import mujoco
import numpy as np

from dit_policy_ros.calibration import Kinematics
from dit_policy_ros.errors import RobotError

_GYM_ALOHA = "gym_aloha:"


class ModelKinematics:
    """Poses of tips and bodies for given joint positions. Not thread-safe."""

    def __init__(self, kinematics: Kinematics) -> None:
        """Loads the model.

        Raises:
            RobotError: the model cannot be loaded, or lacks a joint or site that the robot description names.
        """
        self._model = load_model(kinematics.model)
        self._data = mujoco.MjData(self._model)
        self._sites = {arm: self._id(mujoco.mjtObj.mjOBJ_SITE, "site", name) for arm, name in kinematics.tips.items()}
        joints = {
            name: self._id(mujoco.mjtObj.mjOBJ_JOINT, "joint", joint) for name, joint in kinematics.joints.items()
        }
        self._places = {name: int(self._model.jnt_qposadr[joint]) for name, joint in joints.items()}

    def tips(self, positions: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Returns arm to (3,), the place between its fingers in the world, [m].

        Args:
            positions: joint of the robot to its position, [rad] or [m]; others are where the model has them at rest.
        """
        self._move(positions)
        return {arm: self._data.site_xpos[site].copy() for arm, site in self._sites.items()}

    def body_pose(self, body: str, positions: Mapping[str, float]) -> np.ndarray:
        """Returns the pose of a body in the world, (4, 4).

        Raises:
            RobotError: the model has no such body.
        """
        index = self._id(mujoco.mjtObj.mjOBJ_BODY, "body", body)
        self._move(positions)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self._data.xmat[index].reshape(3, 3), self._data.xpos[index]
        return pose

    def _move(self, positions: Mapping[str, float]) -> None:
        for name, place in self._places.items():
            if name in positions:
                self._data.qpos[place] = positions[name]
        mujoco.mj_kinematics(self._model, self._data)

    def _id(self, kind: mujoco.mjtObj, what: str, name: str) -> int:
        index = mujoco.mj_name2id(self._model, kind, name)
        if index < 0:
            counts = {"site": self._model.nsite, "joint": self._model.njnt, "body": self._model.nbody}
            known = (mujoco.mj_id2name(self._model, kind, k) for k in range(counts[what]))
            raise RobotError(
                f"The model has no {what} '{name}', which the robot description names. It has "
                f"{', '.join(name for name in known if name)}."
            )
        return index


def load_model(model: str) -> mujoco.MjModel:
    """Loads a robot's model.

    Raises:
        RobotError: there is no such file, or it is no model.
    """
    path = Path(model)
    if model.startswith(_GYM_ALOHA):
        path = _gym_aloha() / "assets" / model.removeprefix(_GYM_ALOHA)
    try:
        return mujoco.MjSpec.from_file(str(path)).compile()
    except (ValueError, OSError) as problem:
        raise RobotError(f"The robot's model {model} cannot be loaded: {' '.join(str(problem).split())}.") from problem
    finally:
        _forget_loading()


def _gym_aloha() -> Path:
    """Returns the folder of the package without importing it: only its files are wanted, and it imports a gym."""
    found = importlib.util.find_spec("gym_aloha")
    if found is None or found.origin is None:
        raise RobotError("The robot's model is part of gym-aloha; pip install 'dit_policy_ros[sim]'.")
    return Path(found.origin).parent


def _forget_loading() -> None:
    """Gives back what loading leaves behind: MuJoCo keeps every mesh it read, and glibc the memory that was freed."""
    # Not every release of MuJoCo that is allowed here has a cache, nor every C library this call.
    if hasattr(mujoco, "mj_clearCache"):
        mujoco.mj_clearCache(mujoco.mj_getCache())
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
