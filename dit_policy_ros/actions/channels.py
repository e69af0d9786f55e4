"""Between the values of named robot channels and the vectors of a network.

The way out: robot units, then the reference, then the normalisation, then the places in the network's vector.
``measured`` is always what the robot measured when the chunk was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dit_policy_ros.actions.normalise import Normaliser, binarised
from dit_policy_ros.errors import PolicyError, one_of

ABSOLUTE = "absolute"
JOINT_REFERENCES = (ABSOLUTE, "relative", "delta")


class Channels(Protocol):
    """A view of a robot that a network was trained with."""

    @property
    def names(self) -> tuple[str, ...]:
        """Robot channels, as in observations and chunks."""

    @property
    def width(self) -> int:
        """Length of the network's vector."""

    @property
    def mask(self) -> np.ndarray:
        """(width,) bool, the places that are filled."""

    def to_network(self, values: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """(K, len(names)) and (len(names),) -> (K, width)."""

    def from_network(self, values: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """(K, width) and (len(names),) -> (K, len(names))."""


@dataclass(frozen=True)
class Places:
    """Where normalised values stand in a network's vector; the rest is 0."""

    indices: np.ndarray
    """(C,) int64."""
    width: int

    def __post_init__(self) -> None:
        if len(self.indices) and self.indices.max() >= self.width:
            raise PolicyError(f"{len(self.indices)} channels do not fit into the network's {self.width}.")

    @property
    def mask(self) -> np.ndarray:
        """(width,) bool."""
        mask = np.zeros(self.width, dtype=bool)
        mask[self.indices] = True
        return mask

    def spread(self, values: np.ndarray) -> np.ndarray:
        """(..., C) -> (..., width)."""
        vector = np.zeros((*values.shape[:-1], self.width))
        vector[..., self.indices] = values
        return vector


@dataclass(frozen=True)
class JointChannels:
    """Joints and grippers by name."""

    names: tuple[str, ...]
    places: Places
    normaliser: Normaliser
    reference: str = ABSOLUTE
    """'relative' to what was measured, or 'delta', each to the one before it and the first to what was measured."""
    always_absolute: tuple[str, ...] = ()
    """Channels, usually grippers, that the reference leaves alone."""
    threshold: float | None = None
    """Splits ``always_absolute`` channels of the network into 0 and 1; None does not."""

    def __post_init__(self) -> None:
        if self.reference not in JOINT_REFERENCES:
            raise PolicyError(one_of("Reference of joint actions", self.reference, JOINT_REFERENCES))
        foreign = [name for name in self.always_absolute if name not in self.names]
        if foreign:
            raise PolicyError(one_of("Channel", foreign[0], self.names))

    @property
    def width(self) -> int:
        """Length of the network's vector."""
        return self.places.width

    @property
    def mask(self) -> np.ndarray:
        """(width,) bool, the places that are filled."""
        return self.places.mask

    @property
    def _kept(self) -> np.ndarray:
        return np.array([name in self.always_absolute for name in self.names])

    def to_network(self, values: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """See ``Channels``."""
        if self.reference == ABSOLUTE:
            moved = values
        elif self.reference == "relative":
            moved = values - measured
        else:
            moved = np.diff(values, axis=0, prepend=measured[None])
        return self.places.spread(self.normaliser.normalise(np.where(self._kept, values, moved)))

    def from_network(self, values: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """See ``Channels``."""
        taken = values[..., self.places.indices]
        if self.threshold is not None:
            taken = np.where(self._kept, binarised(taken, self.threshold), taken)
        moved = self.normaliser.restore(taken)
        if self.reference == ABSOLUTE:
            return moved
        placed = measured + (moved if self.reference == "relative" else np.cumsum(moved, axis=0))
        return np.where(self._kept, moved, placed)
