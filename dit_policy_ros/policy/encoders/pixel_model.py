"""A transformers model that sees images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from dit_policy_ros.policy.encoders.pixels import PixelFormat


class PixelModel:
    """Base of image encoders: a model, and how images become its input."""

    def __init__(self, model: nn.Module, pixels: PixelFormat) -> None:
        self.model = model
        self.pixels = pixels

    @property
    def width(self) -> int:
        """Width of a feature."""
        return self.model.config.hidden_size

    def input(self, images: Sequence[np.ndarray | None]) -> Tensor:
        """Returns N images as the model takes them, (N, 3, H, W); None stands for a missing camera."""
        parameter = next(self.model.parameters())
        return self.pixels(images).to(parameter.device, parameter.dtype)
