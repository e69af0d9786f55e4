"""Qwen2-VL's and Qwen2.5-VL's own processing of images and text, without the video half, which needs torchvision.

Source: the files of a model directory, read by the tokenizer and the PIL image processor of transformers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.encoders.hub import transformers_module

KINDS = ("qwen2_vl", "qwen2_5_vl")
"""Model types whose images are processed alike."""

PROCESSORS = ("Qwen2VLImageProcessorPil", "Qwen2VLImageProcessor")
"""Names of the image processor in transformers, the newer first."""

IMAGE = "<|image_pad|>"
"""Stands for a whole image in a prompt, and for each of its merged patches in what the model reads."""


class QwenProcessor:
    """Takes and returns what the official processor does for images and text."""

    def __init__(self, images: Any, tokenizer: Any, template: str | None = None) -> None:
        """Joins an image processor and a tokenizer of transformers; ``from_directory`` is the usual way.

        Args:
            template: chat template; None takes the tokenizer's.
        """
        self.images = images
        self.tokenizer = tokenizer
        self.template = template

    @classmethod
    def from_directory(cls, directory: Path) -> QwenProcessor:
        """Reads a model directory.

        Raises:
            CheckpointError: the tokenizer or ``preprocessor_config.json`` is missing or damaged.
        """
        transformers = transformers_module()
        # Before it was renamed, the processor without torchvision had the plain name.
        name = next(each for each in PROCESSORS if hasattr(transformers, each))
        try:
            images = getattr(transformers, name).from_pretrained(directory, local_files_only=True)
            tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
        except (OSError, ValueError) as problem:
            reason = str(problem).strip().splitlines()[0]
            raise CheckpointError(f"The processor of {directory} does not load: {reason}") from problem
        return cls(images, tokenizer, _template(directory))

    def apply_chat_template(self, messages: Any, **options: Any) -> str:
        """Returns the text of a conversation, with one image mark for each image."""
        return self.tokenizer.apply_chat_template(messages, chat_template=self.template, **options)

    def __call__(
        self, text: Sequence[str], images: Sequence[np.ndarray] | None = None, return_tensors: str = "pt"
    ) -> dict[str, Tensor]:
        """Returns the inputs of the model for one prompt.

        ``mm_token_type_ids`` are 1 at image tokens: newer models place these in rows and columns by it.

        Raises:
            PolicyError: the prompt has another number of image marks than there are images.
        """
        (prompt,) = text
        images = images or ()
        if prompt.count(IMAGE) != len(images):
            raise PolicyError(f"The prompt has {prompt.count(IMAGE)} image marks for {len(images)} images.")
        seen = dict(self.images(images=list(images), return_tensors=return_tensors)) if len(images) else {}
        head, *tails = prompt.split(IMAGE)
        merged = [int(grid.prod()) // self.images.merge_size**2 for grid in seen.get("image_grid_thw", ())]
        whole = head + "".join(IMAGE * count + tail for count, tail in zip(merged, tails, strict=True))
        batch = dict(self.tokenizer([whole], return_tensors=return_tensors))
        kinds = batch["input_ids"] == self.tokenizer.convert_tokens_to_ids(IMAGE)
        return {**batch, "mm_token_type_ids": kinds.to(torch.int32), **seen}


def _template(directory: Path) -> str | None:
    """The chat template beside the tokenizer's own, in the newer or the older kind of file."""
    plain, old = directory / "chat_template.jinja", directory / "chat_template.json"
    if plain.is_file():
        return plain.read_text(encoding="utf-8")
    return json.loads(old.read_text(encoding="utf-8"))["chat_template"] if old.is_file() else None
