"""Operations of the ``unified_rotation`` reference directory."""

from __future__ import annotations

import numpy as np
import torch

from dit_policy_ros.actions import pose, rotation
from dit_policy_ros.policy.references.case import Case, Outputs

REPRESENTATIONS = {"relative": "relative", "rel_legacy": "legacy", "delta": "delta"}


def _outputs(**arrays: np.ndarray) -> Outputs:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def _input(case: Case, name: str) -> np.ndarray:
    return case.inputs[name].double().numpy()


def _transform(case: Case, position: str, quaternion: str) -> np.ndarray:
    return pose.transform(_input(case, position), rotation.matrix_from_quaternion(_input(case, quaternion)))


def rot6d_from_matrix(case: Case) -> Outputs:
    """Matrix to 6-D in both layouts."""
    matrix = _input(case, "matrix")
    return _outputs(**{f"rot6d_{layout}": rotation.rot6d_from_matrix(matrix, layout) for layout in rotation.LAYOUTS})


def matrix_from_rot6d(case: Case) -> Outputs:
    """6-D in both layouts to matrix."""
    values = _input(case, "rot6d")
    return _outputs(**{f"matrix_{layout}": rotation.matrix_from_rot6d(values, layout) for layout in rotation.LAYOUTS})


def quaternions(case: Case) -> Outputs:
    """Quaternions of any length."""
    given = _input(case, "quat_xyzw")
    matrix = rotation.matrix_from_quaternion(given)
    unit = rotation.quaternion_from_matrix(matrix)
    return _outputs(
        quat_wxyz=rotation.wxyz(given),
        quat_xyzw_unit=unit,
        quat_wxyz_unit=rotation.wxyz(unit),
        matrix=matrix,
        rotvec=rotation.rotation_vector_from_matrix(matrix),
        rot6d_columns=rotation.rot6d_from_matrix(matrix),
    )


def matrices(case: Case) -> Outputs:
    """Matrix to quaternion, rotation vector and angle."""
    matrix = _input(case, "matrix")
    quaternion, vector = rotation.quaternion_from_matrix(matrix), rotation.rotation_vector_from_matrix(matrix)
    return _outputs(
        quat_xyzw=quaternion,
        quat_wxyz=rotation.wxyz(quaternion),
        rotvec=vector,
        angle=np.linalg.norm(vector, axis=-1),
    )


def euler(case: Case) -> Outputs:
    """Roll, pitch, yaw."""
    matrix = rotation.matrix_from_rpy(_input(case, "euler_rpy"))
    return _outputs(
        matrix=matrix,
        quat_xyzw=rotation.quaternion_from_matrix(matrix),
        rot6d_columns=rotation.rot6d_from_matrix(matrix),
        euler_back=rotation.rpy_from_matrix(matrix),
    )


def absolute_to_relative(case: Case) -> Outputs:
    """World poses in every representation, and back."""
    base = _transform(case, "base_position", "base_quat_xyzw")
    poses = _transform(case, "position", "quat_xyzw")
    arrays = {"absolute_matrix": poses}
    for name, representation in REPRESENTATIONS.items():
        relative = pose.to_relative(poses, base, representation)
        arrays[f"{name}_position"] = relative[:, :3, 3]
        arrays[f"{name}_quat_xyzw"] = rotation.quaternion_from_matrix(relative[:, :3, :3])
        arrays[f"{name}_rot6d_columns"] = rotation.rot6d_from_matrix(relative[:, :3, :3])
        arrays[f"{name}_back_matrix"] = pose.to_absolute(relative, base, representation)
    return _outputs(**arrays)


def relative_to_absolute(case: Case) -> Outputs:
    """A network's relative poses, whose 6-D rotations are not orthonormal, in the world."""
    base = _transform(case, "base_position", "base_quat_xyzw")
    relative = pose.transform(_input(case, "position"), rotation.matrix_from_rot6d(_input(case, "rot6d_columns")))
    arrays = {}
    for name, representation in REPRESENTATIONS.items():
        poses = pose.to_absolute(relative, base, representation)
        arrays[f"{name}_position"] = poses[:, :3, 3]
        arrays[f"{name}_quat_xyzw"] = rotation.quaternion_from_matrix(poses[:, :3, :3])
    return _outputs(**arrays)


def change_base(case: Case) -> Outputs:
    """Relative poses as seen from another base."""
    old, new = (_transform(case, f"{name}_base_position", f"{name}_base_quat_xyzw") for name in ("old", "new"))
    poses = pose.change_base(_transform(case, "position", "quat_xyzw"), old, new)
    return _outputs(new_position=poses[:, :3, 3], new_quat_xyzw=rotation.quaternion_from_matrix(poses[:, :3, :3]))


OPERATIONS = {
    "rot6d_from_matrix": rot6d_from_matrix,
    "matrix_from_rot6d": matrix_from_rot6d,
    "quaternion_conversions": quaternions,
    "matrix_conversions": matrices,
    "euler_conversions": euler,
    "pose_absolute_to_relative": absolute_to_relative,
    "pose_relative_to_absolute": relative_to_absolute,
    "pose_change_base": change_base,
}
