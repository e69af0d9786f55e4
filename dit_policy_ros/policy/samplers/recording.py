"""A wrapper that keeps what a sampler asked of its network: for tests, verification and plots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Recording:
    """Every call of one wrapped denoiser or velocity, in order."""

    inputs: list[Tensor] = field(default_factory=list)
    times: list[Any] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)

    def wrap(self, network: Callable[[Tensor, Any], Tensor]) -> Callable[[Tensor, Any], Tensor]:
        """Returns ``network`` with every call kept here."""

        def recorded(x: Tensor, time: Any) -> Tensor:
            output = network(x, time)
            self.inputs.append(x)
            self.times.append(time)
            self.outputs.append(output)
            return output

        return recorded

    def trajectory(self, sample: Tensor) -> Tensor:
        """Returns the input of every call, then the sample, (calls + 1, *sample.shape)."""
        return torch.stack([*self.inputs, sample])
