"""Autoencoder latents of camera images, from a local directory of diffusers. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.encoders.hub import model_directory

STABLE_DIFFUSION = 0.18215
"""Factor that brings latents of Stable Diffusion's autoencoder to unit variance."""


class LatentEncoder:
    """The mean of the autoencoder's latents, scaled. PAD's training drew samples instead."""

    def __init__(self, model: nn.Module, size: tuple[int, int], scale: float = STABLE_DIFFUSION) -> None:
        """Wraps an autoencoder; ``from_directory`` is the usual way.

        Args:
            size: (height, width) of the image it is given.
        """
        self.model = model
        self.size = size
        self.scale = scale

    @classmethod
    def from_directory(cls, path: str | Path, size: tuple[int, int], scale: float = STABLE_DIFFUSION) -> LatentEncoder:
        """Loads the autoencoder.

        Raises:
            PolicyError: diffusers is not installed.
            CheckpointError: the directory is missing, or holds another kind of model.
        """
        try:
            from diffusers import AutoencoderKL
        except ImportError as problem:
            raise PolicyError("This encoder needs diffusers: pip install diffusers.") from problem
        directory = model_directory(path)
        try:
            model = AutoencoderKL.from_pretrained(
                directory, local_files_only=True, use_safetensors=True, torch_dtype=torch.float32
            )
        except (OSError, ValueError, RuntimeError, TypeError) as problem:
            reason = str(problem).strip().splitlines()[0]
            raise CheckpointError(f"{directory} does not load as an autoencoder: {reason}") from problem
        return cls(model.eval().requires_grad_(False), size, scale)

    @torch.no_grad()
    def __call__(self, images: Sequence[np.ndarray]) -> Tensor:
        """Returns the latents (N, C, h, w) of N images (H, W, 3) uint8 RGB."""
        height, width = self.size
        rows = [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images]
        pixels = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float()  # (N, 3, H, W)
        pixels = pixels.to(next(self.model.parameters()).device)
        return self.model.encode(((pixels - 128) / 127.5).clamp(-1, 1)).latent_dist.mean * self.scale
