"""A small convolutional encoder that names points: spatial soft-argmax keypoints, steered by the instruction.

Keypoints after Levine et al., "End-to-End Training of Deep Visuomotor Policies" (2016); conditioning after Perez et
al., "FiLM: Visual Reasoning with a General Conditioning Layer" (2018).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SHARPNESS = 4.0
"""Scale of the heat maps: with 1, a soft-argmax over a thousand places takes long to leave the middle of the image."""


class FilmConv(nn.Module):
    """Convolution, group norm, scale and shift by a condition, SiLU."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, condition: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2)
        self.norm = nn.GroupNorm(8, channels)
        self.film = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, channels_in, H, W), (B, condition) -> (B, channels, H / stride, W / stride)."""
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        return F.silu(self.norm(self.conv(x)) * (1 + scale) + shift)


class KeypointEncoder(nn.Module):
    """An image to keypoints: where each of some learned things is.

    Nothing but the places leaves the encoder. A network that also saw the features there learned its training scenes
    by heart; places generalise, since a convolution finds a thing wherever it is.
    """

    def __init__(self, keypoints: int, condition: int, width: int = 64) -> None:
        super().__init__()
        self.keypoints = keypoints
        self.stem = FilmConv(3, width // 2, 5, 2, condition)
        self.down = FilmConv(width // 2, width, 3, 2, condition)
        self.body = nn.ModuleList([FilmConv(width, width, 3, 1, condition) for _ in range(2)])
        self.heat = nn.Conv2d(width, keypoints, 1)
        self.sharpness = nn.Parameter(torch.tensor(1.0))

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """Finds keypoints.

        Args:
            image: (B, 3, H, W), RGB scaled to -1..1.
            condition: (B, condition).

        Returns:
            Places (B, keypoints, 2), x right and y down in -1..1.
        """
        x = self.down(self.stem(image, condition), condition)
        for block in self.body:
            x = x + block(x, condition)  # (B, C, H/4, W/4)
        heat = self.heat(x).float().flatten(2) * (_SHARPNESS * self.sharpness)  # (B, K, H*W/16)
        height, width = x.shape[-2:]
        rows = torch.linspace(-1, 1, height, device=x.device)
        columns = torch.linspace(-1, 1, width, device=x.device)
        grid = torch.stack([columns.repeat(height), rows.repeat_interleave(width)], dim=-1)  # (H*W/16, 2)
        return heat.softmax(-1) @ grid
