"""CLIP from a local directory: one vector per image, one per instruction.

Source of what LeRobot takes: https://github.com/huggingface/lerobot, ``policies/multi_task_dit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dit_policy_ros.policy.encoders.hub import load_model, model_directory, transformers_module
from dit_policy_ros.policy.encoders.language import LanguageFeatures
from dit_policy_ros.policy.encoders.pixel_model import PixelModel
from dit_policy_ros.policy.encoders.pixels import PixelFormat


class ClipVision(PixelModel):
    """The class token of the last hidden state, before the pooled output's norm. Images are stretched, not padded."""

    @classmethod
    def from_directory(cls, path: str | Path, dtype: torch.dtype = torch.float32) -> ClipVision:
        """Loads the vision half.

        Raises:
            CheckpointError: the directory is missing, or holds another kind of model.
        """
        directory = model_directory(path)
        model = load_model(transformers_module().CLIPVisionModel, directory, dtype)
        return cls(model, replace(PixelFormat.from_directory(directory), pad=False))

    @torch.inference_mode()
    def __call__(self, images: Sequence[np.ndarray | None]) -> Tensor:
        """Returns the features (N, 1, width) of N images; None stands for a missing camera."""
        return self.model(self.input(images)).last_hidden_state[:, :1]


class ClipText:
    """One vector per instruction: the pooled text output, or its projection to the space shared with images."""

    def __init__(self, model: nn.Module, tokenizer: Any, projected: bool = False) -> None:
        """Wraps a transformers model and tokenizer; ``from_directory`` is the usual way.

        Args:
            projected: LeRobot takes the pooled output; MDT, MoDE, UWM and PAD what CLIP compares with images.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.projected = projected

    @classmethod
    def from_directory(cls, path: str | Path, dtype: torch.dtype = torch.float32, projected: bool = False) -> ClipText:
        """Loads the text half and its tokenizer.

        Raises:
            CheckpointError: the directory is missing, or holds another kind of model.
        """
        transformers, directory = transformers_module(), model_directory(path)
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
        loader = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
        return cls(load_model(loader, directory, dtype), tokenizer, projected)

    @property
    def width(self) -> int:
        """Width of a feature."""
        return self.model.config.projection_dim if self.projected else self.model.config.hidden_size

    @torch.inference_mode()
    def __call__(self, instruction: str) -> LanguageFeatures:
        """Encodes one instruction; what exceeds the model's length is cut."""
        most = self.model.config.max_position_embeddings
        batch = self.tokenizer([instruction], truncation=True, max_length=most, return_tensors="pt")
        device = next(self.model.parameters()).device
        output = self.model(**{name: batch[name].to(device) for name in ("input_ids", "attention_mask")})
        vector = output.text_embeds if self.projected else output.pooler_output
        return LanguageFeatures(vector[None], torch.ones(1, 1, dtype=torch.bool))
