"""Vision towers: patches to features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.encoders.hub import load_model, model_directory, transformers_module
from dit_policy_ros.policy.encoders.pixel_model import PixelModel
from dit_policy_ros.policy.encoders.pixels import PixelFormat

LAST, PENULTIMATE = "last", "penultimate"
"""The normalised last hidden state (RDT), or what leaves the last block but one, not normalised (H-RDT)."""


class VisionTower(PixelModel):
    """One vision transformer from a local directory."""

    def __init__(self, model: nn.Module, pixels: PixelFormat, layer: str = LAST) -> None:
        """Wraps a transformers model; ``from_directory`` is the usual way.

        Args:
            layer: 'last' or 'penultimate'.
        """
        super().__init__(model, pixels)
        self.layer = layer
        config = model.config
        # DINOv2 has a class token and perhaps registers before the patches, SigLIP has neither.
        self.leading = 0 if "siglip" in config.model_type else 1 + getattr(config, "num_register_tokens", 0)

    @classmethod
    def from_directory(cls, path: str | Path, layer: str = LAST, dtype: torch.dtype = torch.float32) -> VisionTower:
        """Loads SigLIP, DINOv2 or DINOv2 with registers.

        Raises:
            CheckpointError: the directory is missing, or holds another kind of model.
        """
        transformers = transformers_module()
        directory = model_directory(path)
        kind = transformers.AutoConfig.from_pretrained(directory, local_files_only=True).model_type
        loaders = {
            "siglip": transformers.SiglipVisionModel,
            "siglip_vision_model": transformers.SiglipVisionModel,
            "dinov2": transformers.Dinov2Model,
            "dinov2_with_registers": transformers.Dinov2WithRegistersModel,
        }
        if kind not in loaders:
            raise CheckpointError(f"{directory} holds a '{kind}'; vision towers are {', '.join(sorted(loaders))}.")
        return cls(load_model(loaders[kind], directory, dtype), PixelFormat.from_directory(directory), layer)

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray | None]) -> Tensor:
        """Returns the features (N, patches, width) of N images; None stands for a missing camera."""
        output = self.model(self.input(images), output_hidden_states=self.layer == PENULTIMATE)
        states = output.hidden_states[-2] if self.layer == PENULTIMATE else output.last_hidden_state
        return states[:, self.leading :]


class FusedTowers:
    """DINOv2 and SigLIP features side by side: the images of H-RDT and Prismatic models such as CogACT's."""

    def __init__(self, dino: VisionTower, siglip: VisionTower) -> None:
        """Joins two towers with equally many patches; both normally 'penultimate'."""
        self.dino = dino
        self.siglip = siglip

    @property
    def width(self) -> int:
        """Width of a feature."""
        return self.dino.width + self.siglip.width

    def __call__(self, images: Sequence[np.ndarray | None]) -> Tensor:
        """Returns the features (N, patches, width), DINOv2's channels first.

        Raises:
            CheckpointError: the towers divide an image into different numbers of patches.
        """
        dino, siglip = self.dino(images), self.siglip(images)
        if dino.shape[1] != siglip.shape[1]:
            raise CheckpointError(
                f"DINOv2 makes {dino.shape[1]} patches of an image, SigLIP {siglip.shape[1]}; "
                "set both preprocessor_config.json to the same number of patches (27 x 27 for H-RDT)."
            )
        return torch.cat([dino, siglip], dim=-1)


def one_sequence(features: Tensor) -> Tensor:
    """(N, patches, width) -> (1, N * patches, width): image after image, as RDT and H-RDT take them."""
    return features.flatten(0, 1)[None]
