"""The normaliser that Diffusion Policy keeps among its parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Scaling(nn.Module):
    """``x * scale + offset`` per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.offset = nn.Parameter(torch.zeros(width))

    def normalize(self, x: Tensor) -> Tensor:
        """Maps raw values (..., width) to the network's range."""
        return x * self.scale + self.offset

    def unnormalize(self, x: Tensor) -> Tensor:
        """Inverse of ``normalize``."""
        return (x - self.offset) / self.scale


class Scalings(nn.ModuleDict):
    """The parameters under ``normalizer.``: one scaling for each of 'obs' and 'action', or more."""

    def __init__(self, widths: Sequence[tuple[str, int]]) -> None:
        super().__init__({"params_dict": nn.ModuleDict({name: Scaling(width) for name, width in widths})})

    def of(self, name: str) -> Scaling:
        """Returns one scaling."""
        return self["params_dict"][name]
