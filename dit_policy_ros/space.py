"""The 128-slot unified action space of RDT, and name-based maps between it and a robot.

Index table of "RDT-1B: a Diffusion Foundation Model for Bimanual Manipulation" (Liu et al., 2024), as its
official implementation publishes it. Right arm 0..49, left arm 50..99, mobile base 100..102, rest reserved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.errors import RobotError, one_of

SIZE = 128

# Offset inside one arm's block of 50, and the names there.
_ARM_BLOCK: tuple[tuple[int, tuple[str, ...]], ...] = (
    (0, tuple(f"arm_joint_{i}_pos" for i in range(10))),
    (10, tuple(f"gripper_joint_{i}_pos" for i in range(5))),
    (10, ("gripper_open",)),
    (15, tuple(f"arm_joint_{i}_vel" for i in range(10))),
    (25, tuple(f"gripper_joint_{i}_vel" for i in range(5))),
    (25, ("gripper_open_vel",)),
    (30, ("eef_pos_x", "eef_pos_y", "eef_pos_z")),
    (33, tuple(f"eef_angle_{i}" for i in range(6))),
    (39, ("eef_vel_x", "eef_vel_y", "eef_vel_z")),
    (42, ("eef_angular_vel_roll", "eef_angular_vel_pitch", "eef_angular_vel_yaw")),
)


def _slot_table() -> dict[str, int]:
    """Names of one-armed robots are aliases of the right arm's."""
    table: dict[str, int] = {}
    for prefix, base in (("", 0), ("right_", 0), ("left_", 50)):
        for offset, names in _ARM_BLOCK:
            table.update({prefix + name: base + offset + i for i, name in enumerate(names)})
    table.update(base_vel_x=100, base_vel_y=101, base_angular_vel=102)
    return table


SLOTS: Mapping[str, int] = _slot_table()


def slot_index(name: str) -> int:
    """Returns the index 0..127 of a named slot.

    Raises:
        RobotError: no slot has this name.
    """
    if name not in SLOTS:
        raise RobotError(one_of("Slot", name, SLOTS))
    return SLOTS[name]


@dataclass(frozen=True)
class SlotMap:
    """Which unified slot each channel of a robot fills."""

    names: tuple[str, ...]
    """Channel (joint) names."""
    indices: np.ndarray
    """(len(names),) int64, slot of each channel."""

    @classmethod
    def from_slots(cls, slots: Mapping[str, str]) -> SlotMap:
        """Makes a map from channel name to slot name.

        Raises:
            RobotError: a slot is unknown, or two channels fill the same one.
        """
        indices = [slot_index(slot) for slot in slots.values()]
        for i, index in enumerate(indices):
            if index in indices[:i]:
                names = list(slots)
                first, second = names[indices.index(index)], names[i]
                raise RobotError(f"Joints '{first}' and '{second}' both fill slot {index}; give each its own slot.")
        return cls(tuple(slots), np.array(indices, dtype=np.int64))

    @property
    def mask(self) -> np.ndarray:
        """Which slots are filled, (128,) bool."""
        mask = np.zeros(SIZE, dtype=bool)
        mask[self.indices] = True
        return mask

    def to_unified(self, values: np.ndarray) -> np.ndarray:
        """Spreads (..., len(names)) values over (..., 128) slots; the others are zero and masked out."""
        unified = np.zeros((*values.shape[:-1], SIZE), dtype=values.dtype)
        unified[..., self.indices] = values
        return unified

    def from_unified(self, unified: np.ndarray) -> np.ndarray:
        """Gathers (..., len(names)) values from (..., 128) slots."""
        return unified[..., self.indices]


def gather(values: Mapping[str, float], names: Sequence[str], what: str = "joint") -> np.ndarray:
    """Returns the values of ``names`` in that order, (len(names),) float64, whatever order they came in.

    Raises:
        RobotError: a name is missing or its value is not finite.
    """
    missing = [name for name in names if name not in values]
    if missing:
        raise RobotError(
            f"Missing {what} {', '.join(missing)}; got {', '.join(sorted(values)) or 'nothing'}. "
            "Check the names in the robot YAML against the message."
        )
    array = np.array([values[name] for name in names], dtype=np.float64)
    if not np.isfinite(array).all():
        bad = [name for name, value in zip(names, array, strict=True) if not np.isfinite(value)]
        raise RobotError(f"The {what} {', '.join(bad)} is not finite; the sensor or driver is at fault.")
    return array
