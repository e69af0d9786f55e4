"""What PAD denoises together: images, actions and depth, and where their parameters are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

IMAGE, ACTION, DEPTH = "", "a_", "d_"
"""What the final layer's parameters of each modality begin with."""
EMBEDDERS = {IMAGE: "x_embedder", ACTION: "a_embedder", DEPTH: "d_embedder"}
POSITIONS = {IMAGE: "pos_embed", ACTION: "a_pos_embed", DEPTH: "d_pos_embed"}


class Part(NamedTuple):
    """One modality."""

    name: str
    """What its parameters in the final layer begin with: one of IMAGE, ACTION, DEPTH."""
    inputs: int
    """Channels of what is denoised and of what is known."""
    moving: int
    """Channels of what is denoised."""
    patch: int
    """Side of a token; 1 for actions."""
    positions: int

    @property
    def outputs(self) -> int:
        """Values that the final layer makes of a token: noise and variance of every channel."""
        return 2 * self.moving * self.patch**2


class PadSample(NamedTuple):
    """What is denoised together. As network output every channel is there twice: noise, then variance values."""

    latent: Tensor
    """(B, frames * 4, h, w) future latents, frames stacked on channels."""
    action: Tensor | None = None
    """(B, tokens, width) actions; one token of all steps where the checkpoint is conditioned on the pose. None where
    it was trained on videos alone."""
    depth: Tensor | None = None
    """(B, frames, H, W) future depth maps."""

    def like(self, pieces: Iterable[Tensor]) -> PadSample:
        """Puts one tensor for every part that is here into the same places."""
        rest = iter(pieces)
        return PadSample(*(None if part is None else next(rest) for part in self))

    def of(self, modality: str) -> Tensor | None:
        """Returns one part."""
        return {IMAGE: self.latent, ACTION: self.action, DEPTH: self.depth}[modality]

    def packed(self) -> Tensor:
        """(B, all values)."""
        return torch.cat([part.flatten(1) for part in self if part is not None], dim=1)

    def unpacked(self, values: Tensor) -> PadSample:
        """Inverse of ``packed`` for parts of these shapes."""
        parts = [part for part in self if part is not None]
        pieces = values.split([part[0].numel() for part in parts], dim=1)
        return self.like(piece.reshape(part.shape) for piece, part in zip(pieces, parts, strict=True))

    def halves(self) -> tuple[PadSample, PadSample]:
        """Splits a network output into noise and variance values."""
        axes = (1, 2, 1)
        pairs = [part.chunk(2, axis) for part, axis in zip(self, axes, strict=True) if part is not None]
        return self.like(pair[0] for pair in pairs), self.like(pair[1] for pair in pairs)
