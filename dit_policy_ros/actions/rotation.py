"""Rotations as 3x3 matrices, 6-D vectors, quaternions, rotation vectors, and roll, pitch, yaw.

Quaternions are (x, y, z, w), the order of ROS and scipy; what is returned has unit length and w >= 0. Arrays carry any
leading dimensions and are float64. All conversions pass through the matrix.
"""

from __future__ import annotations

import numpy as np

from dit_policy_ros.errors import PolicyError, one_of

LAYOUTS = ("columns", "rows")
_TINY = 1e-12


def rot6d_from_matrix(matrix: np.ndarray, layout: str = "columns") -> np.ndarray:
    """Returns the 6-D form of (..., 3, 3) matrices, (..., 6) ("On the Continuity of Rotation Representations").

    Args:
        matrix: rotations.
        layout: 'columns' is the first column followed by the second (RDT, RDT2); 'rows' the first row followed by the
            second (UMI, PyTorch3D). One read as the other is the inverse rotation.

    Raises:
        PolicyError: unknown layout.
    """
    matrix = _in_columns(np.asarray(matrix, dtype=np.float64), layout)
    return np.concatenate([matrix[..., :, 0], matrix[..., :, 1]], axis=-1)


def matrix_from_rot6d(values: np.ndarray, layout: str = "columns") -> np.ndarray:
    """Returns the rotation nearest the two vectors by Gram-Schmidt, (..., 3, 3); their lengths do not matter.

    Raises:
        PolicyError: unknown layout, or the vectors are zero or parallel.
    """
    values = np.asarray(values, dtype=np.float64)
    x = _unit(values[..., :3])
    y = _unit(values[..., 3:] - (x * values[..., 3:]).sum(-1, keepdims=True) * x)
    return _in_columns(np.stack([x, y, np.cross(x, y)], axis=-1), layout)


def matrix_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Returns (..., 3, 3) for (..., 4) quaternions of any length but zero.

    Raises:
        PolicyError: a quaternion is zero.
    """
    x, y, z, w = np.moveaxis(_unit(np.asarray(quaternion, dtype=np.float64)), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Returns (..., 4) unit quaternions with w >= 0.

    Of the four equivalent formulas the one with the largest divisor is taken (Shepperd, 1978).
    """
    m = np.asarray(matrix, dtype=np.float64)
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    # Row c is four times component c of the quaternion, times all four components.
    products = np.stack(
        [
            np.stack([1 + xx - yy - zz, m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], _skew(m, 2, 1)], -1),
            np.stack([m[..., 0, 1] + m[..., 1, 0], 1 - xx + yy - zz, m[..., 1, 2] + m[..., 2, 1], _skew(m, 0, 2)], -1),
            np.stack([m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1], 1 - xx - yy + zz, _skew(m, 1, 0)], -1),
            np.stack([_skew(m, 2, 1), _skew(m, 0, 2), _skew(m, 1, 0), 1 + xx + yy + zz], -1),
        ],
        axis=-2,
    )
    largest = np.argmax(np.diagonal(products, axis1=-2, axis2=-1), axis=-1)
    quaternion = _unit(np.take_along_axis(products, largest[..., None, None], axis=-2)[..., 0, :])
    return np.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def rotation_vector_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Returns axis times angle, (..., 3), the angle in [0, pi] [rad]."""
    quaternion = quaternion_from_matrix(matrix)
    sine = np.linalg.norm(quaternion[..., :3], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternion[..., 3:])
    return quaternion[..., :3] * np.where(sine > _TINY, angle / np.maximum(sine, _TINY), 2.0)


def matrix_from_rotation_vector(vector: np.ndarray) -> np.ndarray:
    """Returns (..., 3, 3) for axis times angle, (..., 3) [rad]."""
    vector = np.asarray(vector, dtype=np.float64)
    half = np.linalg.norm(vector, axis=-1, keepdims=True) / 2
    return matrix_from_quaternion(np.concatenate([vector / 2 * np.sinc(half / np.pi), np.cos(half)], axis=-1))


def matrix_from_rpy(rpy: np.ndarray) -> np.ndarray:
    """Returns ``Rz(yaw) Ry(pitch) Rx(roll)``, turns about fixed axes as in URDF, for (..., 3) [rad]."""
    roll, pitch, yaw = np.moveaxis(np.asarray(rpy, dtype=np.float64), -1, 0)
    zero = np.zeros_like(roll)
    turns = [np.stack([a, b, c], axis=-1) for a, b, c in ((roll, zero, zero), (zero, pitch, zero), (zero, zero, yaw))]
    about_x, about_y, about_z = (matrix_from_rotation_vector(turn) for turn in turns)
    return about_z @ about_y @ about_x


def rpy_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Returns roll, pitch, yaw (..., 3) [rad], the pitch in [-pi/2, pi/2].

    With the pitch at an end only one combination of roll and yaw is defined; the yaw is 0 there.
    """
    m = np.asarray(matrix, dtype=np.float64)
    cosine = np.hypot(m[..., 0, 0], m[..., 1, 0])
    pitch = np.arctan2(-m[..., 2, 0], cosine)
    locked = cosine < 1e-7
    roll = np.where(locked, np.arctan2(-m[..., 1, 2], m[..., 1, 1]), np.arctan2(m[..., 2, 1], m[..., 2, 2]))
    yaw = np.where(locked, 0.0, np.arctan2(m[..., 1, 0], m[..., 0, 0]))
    return np.stack([roll, pitch, yaw], axis=-1)


def wxyz(quaternion: np.ndarray) -> np.ndarray:
    """Returns (x, y, z, w) quaternions as (w, x, y, z), the order of MuJoCo."""
    return np.roll(quaternion, 1, axis=-1)


def xyzw(quaternion: np.ndarray) -> np.ndarray:
    """Returns (w, x, y, z) quaternions as (x, y, z, w)."""
    return np.roll(quaternion, -1, axis=-1)


def _skew(matrix: np.ndarray, row: int, column: int) -> np.ndarray:
    return matrix[..., row, column] - matrix[..., column, row]


def _in_columns(matrix: np.ndarray, layout: str) -> np.ndarray:
    if layout not in LAYOUTS:
        raise PolicyError(one_of("Layout of a 6-D rotation", layout, LAYOUTS))
    return matrix if layout == "columns" else np.swapaxes(matrix, -1, -2)


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    if not (length > _TINY).all():
        raise PolicyError("A rotation is undefined: a quaternion or 6-D vector is zero, parallel or not finite.")
    return vector / length
