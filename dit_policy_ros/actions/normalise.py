"""Between a robot's units and a network's: every normalisation of the field is ``scale * value + offset`` a channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dit_policy_ros.actions.statistics import ChannelStatistics
from dit_policy_ros.errors import CheckpointError, PolicyError

_CONSTANT = 1e-8
"""A channel whose spread is not above this does not move; it is only shifted."""


@dataclass(frozen=True)
class Normaliser:
    """One affine map per channel, both ways."""

    scale: np.ndarray
    """(C,) float64, none of them 0."""
    offset: np.ndarray
    """(C,) float64."""
    bound: float | None = None
    """Largest absolute normalised value, in both directions; None does not clip."""

    def __post_init__(self) -> None:
        if self.scale.shape != self.offset.shape or self.scale.ndim != 1:
            raise PolicyError(f"Scale {self.scale.shape} and offset {self.offset.shape} must be vectors of one length.")
        if not np.isfinite(self.scale).all() or not np.isfinite(self.offset).all() or (self.scale == 0).any():
            raise PolicyError("Scale and offset must be finite and no scale 0; the statistics are damaged.")

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """Maps (..., C) from the robot's units to the network's.

        Raises:
            PolicyError: another number of channels.
        """
        self._check(values)
        return self._clipped(values * self.scale + self.offset)

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Maps (..., C) from the network's units to the robot's.

        Raises:
            PolicyError: another number of channels.
        """
        self._check(values)
        return (self._clipped(values) - self.offset) / self.scale

    def only(self, mask: np.ndarray | None) -> Normaliser:
        """Returns one that leaves the channels alone where ``mask`` (C,) is false; they are still clipped."""
        if mask is None:
            return self
        return replace(self, scale=np.where(mask, self.scale, 1.0), offset=np.where(mask, self.offset, 0.0))

    def _clipped(self, values: np.ndarray) -> np.ndarray:
        return values if self.bound is None else np.clip(values, -self.bound, self.bound)

    def _check(self, values: np.ndarray) -> None:
        if values.shape[-1] != len(self.scale):
            raise PolicyError(f"Got {values.shape[-1]} channels; the normalisation is for {len(self.scale)}.")


def z_score(statistics: ChannelStatistics, bound: float | None = None) -> Normaliser:
    """Maps mean and standard deviation to 0 and 1; a channel that does not move is only shifted.

    Raises:
        CheckpointError: the statistics lack the mean or the standard deviation.
    """
    mean, std = _required(statistics, "mean", "std")
    scale = 1.0 / np.where(std > _CONSTANT, std, 1.0)
    return Normaliser(scale, -mean * scale, bound).only(statistics.mask)


def min_max(
    statistics: ChannelStatistics, low: float = -1.0, high: float = 1.0, bound: float | None = None
) -> Normaliser:
    """Maps smallest and largest value to ``low`` and ``high``.

    Raises:
        CheckpointError: the statistics lack the extremes.
    """
    return _between(*_required(statistics, "min", "max"), low, high, bound).only(statistics.mask)


def quantile(statistics: ChannelStatistics, bound: float | None = None) -> Normaliser:
    """Maps the 1st and 99th percentile to -1 and 1 (OpenVLA, CogACT, pi0.5).

    Raises:
        CheckpointError: the statistics lack the percentiles.
    """
    return _between(*_required(statistics, "q01", "q99"), -1.0, 1.0, bound).only(statistics.mask)


def divided(divisors: Sequence[float]) -> Normaliser:
    """Divides each channel, as RDT does its grippers: 1 leaves a channel alone.

    Raises:
        PolicyError: a divisor is 0 or not finite.
    """
    divisors = np.array(divisors, dtype=np.float64)
    if not np.isfinite(divisors).all() or (divisors == 0).any():
        raise PolicyError(f"Divisors must be finite and not 0; got {divisors.tolist()}.")
    return Normaliser(1.0 / divisors, np.zeros_like(divisors))


def none(channels: int) -> Normaliser:
    """Leaves every channel alone."""
    return Normaliser(np.ones(channels), np.zeros(channels))


NORMALISATIONS = {"z_score": z_score, "min_max": min_max, "quantile": quantile}
"""Name to what makes a normaliser of statistics."""


def binarised(values: np.ndarray, threshold: float, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Returns ``high`` where a gripper value reaches the threshold and ``low`` below it."""
    return np.where(values < threshold, low, high)


def _between(smallest: np.ndarray, largest: np.ndarray, low: float, high: float, bound: float | None) -> Normaliser:
    spread = largest - smallest
    moves = spread > _CONSTANT
    scale = np.where(moves, (high - low) / np.where(moves, spread, 1.0), 1.0)
    offset = np.where(moves, low - smallest * scale, (low + high) / 2 - (smallest + largest) / 2)
    return Normaliser(scale, offset, bound)


def _required(statistics: ChannelStatistics, *names: str) -> list[np.ndarray]:
    missing = [name for name in names if getattr(statistics, name) is None]
    if missing:
        raise CheckpointError(f"The statistics lack {', '.join(missing)}; choose another normalisation or file.")
    return [getattr(statistics, name) for name in names]
