"""Poses as 4x4 transforms, and the ways in which policies state them relative to a base (UMI, RDT2).

A transform maps coordinates of its own frame to those of the world, [m].
"""

from __future__ import annotations

import numpy as np

from dit_policy_ros.errors import PolicyError, one_of

REPRESENTATIONS = ("delta", "legacy", "relative")


def transform(position: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns (..., 4, 4) from positions (..., 3) and rotations (..., 3, 3)."""
    matrix = np.asarray(matrix, dtype=np.float64)
    result = np.zeros((*matrix.shape[:-2], 4, 4))
    result[..., :3, :3], result[..., :3, 3], result[..., 3, 3] = matrix, position, 1.0
    return result


def inverse(pose: np.ndarray) -> np.ndarray:
    """Returns the inverse of (..., 4, 4) transforms."""
    turned = np.swapaxes(pose[..., :3, :3], -1, -2)
    return transform(-(turned @ pose[..., :3, 3:])[..., 0], turned)


def to_relative(poses: np.ndarray, base: np.ndarray, representation: str = "relative") -> np.ndarray:
    """Returns (K, 4, 4) poses as seen from a base pose (4, 4).

    Args:
        poses: poses in the world.
        base: usually the measured pose when the chunk was made.
        representation: 'relative' is ``base^-1 pose``; 'legacy' is ``p - p_base`` and ``R R_base^-1``, without turning
            the position (old UMI checkpoints); 'delta' is the same between each pose and the one before it.

    Raises:
        PolicyError: unknown representation.
    """
    if representation == "relative":
        return inverse(base) @ poses
    _check(representation)
    before = (
        np.broadcast_to(base, poses.shape) if representation == "legacy" else np.concatenate([base[None], poses[:-1]])
    )
    turn = poses[:, :3, :3] @ np.swapaxes(before[:, :3, :3], -1, -2)
    return transform(poses[:, :3, 3] - before[:, :3, 3], turn)


def to_absolute(relative: np.ndarray, base: np.ndarray, representation: str = "relative") -> np.ndarray:
    """Inverse of :func:`to_relative`.

    Raises:
        PolicyError: unknown representation.
    """
    if representation == "relative":
        return base @ relative
    _check(representation)
    if representation == "legacy":
        return transform(relative[:, :3, 3] + base[:3, 3], relative[:, :3, :3] @ base[:3, :3])
    position, rotation, poses = base[:3, 3], base[:3, :3], []
    for step in relative:
        position, rotation = position + step[:3, 3], step[:3, :3] @ rotation
        poses.append(transform(position, rotation))
    return np.array(poses).reshape(-1, 4, 4)


def change_base(relative: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Returns poses relative to ``old`` as poses relative to ``new``, ``new^-1 old pose``."""
    return inverse(new) @ old @ relative


def _check(representation: str) -> None:
    if representation not in REPRESENTATIONS:
        raise PolicyError(one_of("Pose representation", representation, REPRESENTATIONS))
