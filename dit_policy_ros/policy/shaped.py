"""Sizes read from the shapes of a checkpoint's parameters, and layers that need no more than that.

What one parameter says is passed on to the layers beside it, so a parameter that disagrees is still found misshapen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.weights import Shapes


def axes(shapes: Shapes, name: str, number: int) -> tuple[int, ...]:
    """Returns the shape of a parameter.

    Raises:
        KeyError: there is none of this name.
        ValueError: it has another number of axes.
    """
    shape = shapes[name]
    if len(shape) != number:
        raise ValueError(f"{name} {tuple(shape)}, which should have {number} axes")
    return tuple(shape)


def count(shapes: Shapes, prefix: str) -> int:
    """Returns how many layers are numbered below a prefix, the largest number and 1."""
    numbers = {name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)}
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)


def checked_heads(heads: int, width: int) -> int:
    """Returns a number of heads, which no shape tells.

    Raises:
        CheckpointError: it does not divide the width.
    """
    if heads < 1 or width % heads:
        raise CheckpointError(f"{heads} attention heads do not divide the width {width}; correct config.json.")
    return heads


class GainNorm(nn.Module):
    """Divides by the root mean square over the last axis, which is at least ``eps``; gain only, called ``g``."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (..., width)."""
        return x / (x.norm(dim=-1, keepdim=True) * x.shape[-1] ** -0.5).clamp(min=self.eps) * self.g
