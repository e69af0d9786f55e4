"""End-effector poses of a robot, and the ways in which networks state them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dit_policy_ros.actions import rotation
from dit_policy_ros.actions.channels import ABSOLUTE, Places
from dit_policy_ros.actions.normalise import Normaliser, binarised
from dit_policy_ros.actions.pose import REPRESENTATIONS, to_absolute, to_relative, transform
from dit_policy_ros.errors import PolicyError, one_of

REFERENCES = (ABSOLUTE, *REPRESENTATIONS)
POSE = (*(f"eef_pos_{axis}" for axis in "xyz"), *(f"eef_angle_{i}" for i in range(6)))
"""Robot channels of one end effector: position [m], then the first two columns of its rotation, all in its base."""

ROTATIONS = {
    "rot6d_columns": (6, rotation.rot6d_from_matrix, rotation.matrix_from_rot6d),
    "rot6d_rows": (
        6,
        lambda matrix: rotation.rot6d_from_matrix(matrix, "rows"),
        lambda values: rotation.matrix_from_rot6d(values, "rows"),
    ),
    "rpy": (3, rotation.rpy_from_matrix, rotation.matrix_from_rpy),
    "rotation_vector": (3, rotation.rotation_vector_from_matrix, rotation.matrix_from_rotation_vector),
    "quaternion": (4, rotation.quaternion_from_matrix, rotation.matrix_from_quaternion),
}
"""How a network states a rotation: number of values, from and to a matrix."""


@dataclass(frozen=True)
class EndEffectorChannels:
    """End-effector poses and grippers, arm after arm: position, rotation, gripper."""

    prefixes: tuple[str, ...]
    """Of each arm's channels, such as 'left_'."""
    grippers: tuple[str, ...]
    """Gripper channel of each arm; empty where the network has none."""
    places: Places
    normaliser: Normaliser
    """Of the network's channels, arm after arm."""
    rotation: str = "rot6d_columns"
    reference: str = ABSOLUTE
    """A representation of ``actions.pose``, or 'absolute'. Grippers are always absolute."""
    threshold: float | None = None
    """Splits the network's grippers into 0 and 1; None does not."""

    def __post_init__(self) -> None:
        if self.rotation not in ROTATIONS:
            raise PolicyError(one_of("Rotation", self.rotation, ROTATIONS))
        if self.reference not in REFERENCES:
            raise PolicyError(one_of("Reference of end-effector actions", self.reference, REFERENCES))
        if self.grippers and len(self.grippers) != len(self.prefixes):
            raise PolicyError(f"{len(self.grippers)} grippers for {len(self.prefixes)} arms; give one each, or none.")
        if self.channels != len(self.normaliser.scale) or self.channels != len(self.places.indices):
            raise PolicyError(
                f"Poses make {self.channels} channels; the normalisation is for {len(self.normaliser.scale)}."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Robot channels, arm after arm."""
        arms = ([p + name for name in POSE] + list(self.grippers[i : i + 1]) for i, p in enumerate(self.prefixes))
        return tuple(name for arm in arms for name in arm)

    @property
    def width(self) -> int:
        """Length of the network's vector."""
        return self.places.width

    @property
    def mask(self) -> np.ndarray:
        """(width,) bool, the places that are filled."""
        return self.places.mask

    @property
    def channels(self) -> int:
        """How many places are filled."""
        return len(self.prefixes) * self._each(ROTATIONS[self.rotation][0])

    def _each(self, angles: int) -> int:
        return 3 + angles + (1 if self.grippers else 0)

    def to_network(self, values: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """See ``Channels``."""
        _, from_matrix, _ = ROTATIONS[self.rotation]
        size, parts = self._each(6), []
        for i in range(len(self.prefixes)):
            arm, now = values[:, i * size : (i + 1) * size], measured[i * size : (i + 1) * size]
            poses = _poses(arm[:, :9])
            if self.reference != ABSOLUTE:
                poses = to_relative(poses, _poses(now[None, :9])[0], self.reference)
            parts += [poses[:, :3, 3], from_matrix(poses[:, :3, :3]), arm[:, 9:]]
        return self.places.spread(self.normaliser.normalise(np.concatenate(parts, axis=1)))

    def from_network(self, values: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """See ``Channels``."""
        count, _, to_matrix = ROTATIONS[self.rotation]
        taken = self._split(values[..., self.places.indices], count)
        size, mine, parts = self._each(count), self._each(6), []
        for i in range(len(self.prefixes)):
            arm, now = taken[:, i * size : (i + 1) * size], measured[i * mine : (i + 1) * mine]
            poses = transform(arm[:, :3], to_matrix(arm[:, 3 : 3 + count]))
            if self.reference != ABSOLUTE:
                poses = to_absolute(poses, _poses(now[None, :9])[0], self.reference)
            parts += [poses[:, :3, 3], rotation.rot6d_from_matrix(poses[:, :3, :3]), arm[:, 3 + count :]]
        return np.concatenate(parts, axis=1)

    def _split(self, values: np.ndarray, count: int) -> np.ndarray:
        """Restores (K, channels), the grippers set to 0 or 1 before where a threshold asks for it."""
        if self.grippers and self.threshold is not None:
            is_gripper = np.arange(values.shape[1]) % self._each(count) == 3 + count
            values = np.where(is_gripper, binarised(values, self.threshold), values)
        return self.normaliser.restore(values)


def _poses(values: np.ndarray) -> np.ndarray:
    """(K, 9) positions and 6-D rotations -> (K, 4, 4)."""
    return transform(values[:, :3], rotation.matrix_from_rot6d(values[:, 3:9]))
