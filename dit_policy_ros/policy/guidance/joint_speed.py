"""The tracking cost of a robot whose joints have a top speed, for ``guidance.tracking``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.actions.channels import ABSOLUTE, JointChannels
from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.guidance.tracking import Gradient, clipped, rate_gradient


@dataclass(frozen=True)
class SpeedTracking:
    """EADP in a ``policy.yaml``, with the speed limits of the robot."""

    largest_change: np.ndarray
    """(C,) how far each channel may move within one step, robot units."""
    scale: float = 1.5
    """Strength; 1.5 in the paper."""
    limit: float = 0.05
    """Largest norm of an action's gradient, in the network's units; that of a position in the paper."""
    repeats: int = 1
    """Passes over every diffusion step."""

    def __post_init__(self) -> None:
        if self.scale <= 0 or self.limit <= 0 or self.repeats < 1:
            raise PolicyError(
                f"Tracking with scale {self.scale}, limit {self.limit} and {self.repeats} repeats does not work; "
                "scale and limit are above 0, repeats at least 1."
            )

    def gradient(self, channels: JointChannels, measured: np.ndarray, lead: int) -> Gradient:
        """Returns the gradient of the cost at a noisy chunk.

        Args:
            channels: between the robot's units and the network's.
            measured: (C,) what the robot measured at the first action.
            lead: rows before it.
        """
        places, delta = channels.places.indices, channels.reference == "delta"
        scale, offset = (torch.from_numpy(part) for part in (channels.normaliser.scale, channels.normaliser.offset))
        bound = channels.normaliser.bound or np.inf
        kept = torch.tensor([name in channels.always_absolute for name in channels.names])
        placed = torch.zeros_like(kept) if channels.reference == ABSOLUTE else ~kept
        frozen = kept if channels.threshold is not None else torch.zeros_like(kept)  # only open and closed
        start, allowed = torch.from_numpy(measured), torch.from_numpy(self.largest_change)

        def gradient(x: Tensor) -> Tensor:
            taken = x[:, lead:, places].cpu().double()
            moved = (taken.clamp(-bound, bound) - offset) / scale
            values = torch.where(placed, start + (moved.cumsum(1) if delta else moved), moved)
            slope = rate_gradient(values, start.expand(len(x), -1), allowed)
            if delta:  # an early step moves every later value
                slope = torch.where(placed, slope.flip(1).cumsum(1).flip(1), slope)
            slope = torch.where(frozen | (taken.abs() > bound), 0.0, slope / scale)
            result = torch.zeros_like(x)
            result[:, lead:, places] = clipped(slope, ((slice(None), self.limit),)).to(x)
            return result

        return gradient
