"""Latent images and videos as tokens, and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Patchifier(nn.Module):
    """Latent frames to tokens and back."""

    def __init__(self, channels: int, hidden: int, patch: tuple[int, int, int]) -> None:
        super().__init__()
        self.patch = patch
        self.patch_encoder = nn.Conv3d(channels, hidden, patch, patch)
        self.patch_decoder = nn.Linear(hidden, channels * math.prod(patch))

    def encode(self, latents: Tensor) -> Tensor:
        """(B, views, C, T, H, W) -> (B, views * patches, D), patches by time, row, column."""
        patches = self.patch_encoder(latents.flatten(0, 1))  # (B*V, D, t, h, w)
        return patches.flatten(2).transpose(1, 2).unflatten(0, latents.shape[:2]).flatten(1, 2)

    def decode(self, tokens: Tensor, shape: torch.Size) -> Tensor:
        """Inverse of ``encode`` for latents of this shape."""
        _, views, channels, *size = shape
        grid = [length // side for length, side in zip(size, self.patch, strict=True)]
        x = self.patch_decoder(tokens).unflatten(1, (views, *grid)).unflatten(-1, (channels, *self.patch))
        x = x.permute(0, 1, 5, 2, 6, 3, 7, 4, 8)  # (B, V, C, t, pt, h, ph, w, pw)
        return x.flatten(7, 8).flatten(5, 6).flatten(3, 4)


def unpatched(out: Tensor, patch: int, shape: torch.Size) -> Tensor:
    """(B, N, p * p * C) -> (B, C, h, w) for an input of this shape."""
    rows, columns = shape[2] // patch, shape[3] // patch
    grid = out.unflatten(-1, (patch, patch, -1)).unflatten(1, (rows, columns))  # (B, r, c, p, p, C)
    return grid.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
