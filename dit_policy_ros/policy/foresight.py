"""Masked generative foresight: the training head that paints two future frames from the context of MDT.

Source: "Multimodal Diffusion Transformer: Learning Versatile Behavior from Multimodal Goals". It shapes the context in
training and takes no part in acting.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dit_policy_ros.policy.attention import FusedAttention
from dit_policy_ros.policy.experts import Gate
from dit_policy_ros.policy.shaped import GainNorm, axes, checked_heads, count
from dit_policy_ros.policy.weights import Shapes

EPS = 1e-8


class Reconstruction(NamedTuple):
    """Painted frames."""

    patches: Tensor
    """(B, frames, P, pixels), pixels by row, column, channel."""
    hidden: Tensor
    """(B, P), 1 for patches that the head did not see."""
    restore: Tensor
    """(B, P) inverse of the shuffle."""


class LayerScale(nn.Module):
    """A factor per feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return self.gamma * x


class PaintBlock(nn.Module):
    """Self-attention and gated feed-forward, each after a norm, scaled and added."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.pre_norm_attn = GainNorm(width, EPS)
        self.attn = FusedAttention(width, heads)
        self.layer_scale_attn = LayerScale(width)
        self.pre_norm_mlp = GainNorm(width, EPS)
        self.mlp = nn.Sequential(Gate(width, hidden), nn.Identity(), nn.Linear(hidden, width))
        self.layer_scale_mlp = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.layer_scale_attn(self.attn(self.pre_norm_attn(x)))
        return x + self.layer_scale_mlp(self.mlp(self.pre_norm_mlp(x)))


class Foresight(nn.Module):
    """Paints the hidden patches of two frames from the others and the context."""

    def __init__(self, shapes: Shapes, prefix: str, context: int, heads: int, mask_ratio: float) -> None:
        super().__init__()
        width, channels, self.patch, _ = axes(shapes, f"{prefix}patch2embed.proj.weight", 4)
        patches = axes(shapes, f"{prefix}decoder_pe", 3)[1]
        frames = axes(shapes, f"{prefix}ctx_dec_pe", 4)[1]
        hidden = axes(shapes, f"{prefix}decoder_blocks.0.mlp.0.project.weight", 2)[0] // 2
        self.mask_ratio = mask_ratio
        self.encoder2decoder = nn.Linear(context, width)
        self.patch2embed = nn.ModuleDict({"proj": nn.Conv2d(channels, width, self.patch, self.patch)})
        self.decoder_pe = nn.Parameter(torch.zeros(1, patches, width))
        self.ctx_dec_pe = nn.Parameter(torch.zeros(1, frames, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        depth = count(shapes, f"{prefix}decoder_blocks.")
        self.decoder_blocks = nn.ModuleList(
            PaintBlock(width, hidden, checked_heads(heads, width)) for _ in range(depth)
        )
        self.decoder_norm = GainNorm(width, EPS)
        self.decoder_patch_prediction = nn.Linear(width, channels * self.patch**2)

    def forward(self, context: Tensor, frames: Tensor, shuffle: Tensor) -> Reconstruction:
        """Paints.

        Args:
            context: (B, L, D) output of the policy's encoder.
            frames: (B, frames, 3, H, W) normalised images.
            shuffle: (B, P) numbers whose ascending order says which patches are kept first, the same in all frames.
        """
        batch, number = frames.shape[:2]
        order = shuffle.argsort(dim=1)
        restore = order.argsort(dim=1)
        patches = shuffle.shape[1]
        kept = int(patches * (1 - self.mask_ratio))
        embedded = self.patch2embed["proj"](frames.flatten(0, 1)).flatten(2).transpose(1, 2)  # (B*F, P, D)
        embedded = (embedded + self.decoder_pe).unflatten(0, (batch, number))
        seen = embedded.gather(2, order[:, None, :kept, None].expand(-1, number, -1, embedded.shape[-1]))
        masked = self.mask_token[:, None].expand(batch, number, patches - kept, -1)
        full = torch.cat([seen, masked], dim=2)  # (B, F, P, D)
        full = full.gather(2, restore[:, None, :, None].expand_as(full))
        full = full + self.decoder_pe[:, None] + self.ctx_dec_pe[:, :number]
        x = torch.cat([self.encoder2decoder(context), full.flatten(1, 2)], dim=1)
        for block in self.decoder_blocks:
            x = block(x)
        pixels = self.decoder_patch_prediction(self.decoder_norm(x[:, context.shape[1] :]))
        return Reconstruction(pixels.unflatten(1, (number, patches)), (restore >= kept).to(context.dtype), restore)

    def loss(self, reconstruction: Reconstruction, frames: Tensor) -> Tensor:
        """Returns the mean squared error of the hidden patches; the targets are the plain pixels."""
        side = self.patch
        rows = frames.unflatten(-1, (-1, side)).unflatten(-3, (-1, side))  # (B, F, C, h, p, w, p)
        target = rows.permute(0, 1, 3, 5, 4, 6, 2).flatten(4).flatten(2, 3)  # (B, F, P, p*p*C)
        error = (reconstruction.patches - target).square().mean(-1)  # (B, F, P)
        hidden = reconstruction.hidden[:, None].expand_as(error)
        return ((error * hidden).sum((0, 2)) / hidden.sum((0, 2))).mean()
