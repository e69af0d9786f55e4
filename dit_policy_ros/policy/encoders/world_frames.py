"""UWM's view of the present: current frames to one condition vector, next frames to latents of its range.

Source: https://github.com/WEIRDLabUW/unified-world-model, ``obs_encoder``. The autoencoder (SDXL) and the text model
(CLIP) are frozen and not part of it; what they output is taken here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.encoders.resnet import ResNet
from dit_policy_ros.policy.weights import Shapes

LATENT_SCALE = 0.13025
"""Of the SDXL autoencoder."""
IMAGE_MEAN, IMAGE_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet."""

RESNET = "img_encoder.model."
FRAMES = "obs_encoder."


@dataclass(frozen=True)
class FramesConfig:
    """What the present is made of."""

    image_shapes: Shapes
    """Parameters of the ResNet, without the prefix of the encoder."""
    text_widths: tuple[int, int] | None
    """Input and output of the text layer; None without language."""
    latent_channels: int | None
    """None where the checkpoint has no scaling of latents."""
    resize: tuple[int, int] | None
    crop: tuple[int, int] | None
    """Rows and columns, about the middle of the image."""
    steps: int = 2
    """Current frames of each camera, and as many next ones."""

    @classmethod
    def read(cls, settings: Mapping[str, Any], shapes: Shapes) -> FramesConfig:
        """Reads the official settings of ``obs_encoder`` and the shapes of all parameters.

        Raises:
            CheckpointError: an option that is not known.
        """
        for option, known in (("vision_backbone", "resnet"), ("imagenet_norm", False)):
            if settings.get(option, known) != known:
                raise CheckpointError(f"UWM with {option} = {settings[option]} is not known; only {known} is.")
        own = {name[len(FRAMES) :]: shape for name, shape in shapes.items() if name.startswith(FRAMES)}
        head, shift = own.get("text_encoder.head.weight"), own.get("vae.shift")
        resize, crop = (settings.get(name) for name in ("resize_shape", "crop_shape"))
        return cls(
            image_shapes={name: shape for name, shape in own.items() if name.startswith(RESNET)},
            text_widths=(head[1], head[0]) if head else None,
            latent_channels=shift[1] if shift else None,
            resize=tuple(resize) if resize else None,
            crop=tuple(crop) if crop else None,
            steps=settings.get("num_frames", 2),
        )


class WorldFrames(nn.Module):
    """The parameters under ``obs_encoder.`` that are not frozen."""

    def __init__(self, config: FramesConfig) -> None:
        super().__init__()
        self.config = config
        if config.image_shapes:
            self.img_encoder = nn.ModuleDict({"model": ResNet(config.image_shapes, RESNET)})
        if config.text_widths:
            self.text_encoder = nn.ModuleDict({"head": nn.Linear(*config.text_widths)})
        if config.latent_channels:
            names = ("shift", "scale")
            self.vae = nn.ParameterDict({name: torch.zeros(1, config.latent_channels, 1, 1) for name in names})

    def transform(self, images: Tensor) -> Tensor:
        """Resizes and crops one view: (B, T, H, W, 3) uint8 -> (B, 3, T, H', W') in [0, 1]."""
        c = self.config
        x = images.flatten(0, 1).permute(0, 3, 1, 2).float() / 255  # (B*T, 3, H, W)
        if c.resize:
            x = F.interpolate(x, size=c.resize, mode="bilinear", antialias=True)
        if c.crop:
            top, left = (round((size - side) / 2) for size, side in zip(x.shape[2:], c.crop, strict=True))
            x = x[:, :, top : top + c.crop[0], left : left + c.crop[1]]
        return x.unflatten(0, images.shape[:2]).transpose(1, 2)

    def forward(self, views: Tensor, low_dim: Tensor | None = None, text: Tensor | None = None) -> Tensor:
        """Returns the condition vector (B, C).

        Args:
            views: (B, V, 3, T, H, W) transformed images, views by sorted name.
            low_dim: (B, T, width) positions and the like, concatenated by sorted name.
            text: (B, width) pooled text features of CLIP.
        """
        rows = (torch.tensor(row, device=views.device)[:, None, None] for row in (IMAGE_MEAN, IMAGE_DEVIATION))
        mean, deviation = rows
        images = (views.transpose(2, 3).flatten(0, 2) - mean) / deviation  # (B*V*T, 3, H, W)
        parts = [self.img_encoder["model"](images).unflatten(0, (len(views), -1)).flatten(1)]
        if low_dim is not None:
            parts.append(low_dim.flatten(1))
        if text is not None:
            parts.append(self.text_encoder["head"](text).flatten(1))
        return torch.cat(parts, dim=-1)

    def scale_latents(self, latents: Tensor) -> Tensor:
        """Maps samples of the autoencoder (..., C, H, W) to the network's range."""
        return (latents * LATENT_SCALE - self.vae["shift"]) / self.vae["scale"]

    def unscale_latents(self, latents: Tensor) -> Tensor:
        """Inverse of ``scale_latents``."""
        return (latents * self.vae["scale"] + self.vae["shift"]) / LATENT_SCALE
