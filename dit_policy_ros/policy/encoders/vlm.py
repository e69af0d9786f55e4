"""A vision-language model as context: hidden states of a chosen layer, or its cache of keys and values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.encoders.hub import load_model, model_directory, transformers_module
from dit_policy_ros.policy.encoders.qwen import KINDS as QWEN
from dit_policy_ros.policy.encoders.qwen import QwenProcessor
from dit_policy_ros.policy.weights import read_json

Prompt = Callable[[str, int], str]
"""From instruction and number of images to the text, with the model's own image placeholders."""

LLAMA_COGNITION_IDS = (29871, 2)
"""CogACT appends these tokens; the feature of the last one is the cognition token."""

KINDS_OF_TOKENS = "mm_token_type_ids"
"""What newer models tell image tokens by."""


class ContextTokens(NamedTuple):
    """Hidden states of one observation and instruction."""

    states: Tensor
    """(1, L, width)."""
    mask: Tensor
    """(1, L) bool, True for valid tokens."""
    image_mask: Tensor
    """(1, L) bool, True for image tokens."""


class CachedTokens(NamedTuple):
    """Keys and values of one observation and instruction, the keys with their rotary embedding."""

    keys: Tensor
    """(layers, 1, kv_heads, L, head_dim)."""
    values: Tensor
    """Same shape."""
    mask: Tensor
    """(1, L) bool, True for valid tokens."""


class VisionLanguageModel:
    """Any image-text model of transformers from a local directory."""

    def __init__(self, model: nn.Module, processor: Any, prompt: Prompt, suffix_ids: Sequence[int] = ()) -> None:
        """Wraps a model and its processor; ``from_directory`` is the usual way.

        Args:
            suffix_ids: token numbers appended to the prompt, such as ``LLAMA_COGNITION_IDS``.
        """
        self.model = model
        self.processor = processor
        self.prompt = prompt
        self.suffix_ids = tuple(suffix_ids)

    @classmethod
    def from_directory(
        cls,
        path: str | Path,
        prompt: Prompt | None = None,
        suffix_ids: Sequence[int] = (),
        dtype: torch.dtype = torch.bfloat16,
        prompt_suffix: str = "",
    ) -> VisionLanguageModel:
        """Loads a model and its processor.

        Args:
            prompt: None takes the chat template of the processor, images before the instruction.
            prompt_suffix: appended to the chat template, such as RDT2's '<|quad_start|>'.

        Raises:
            CheckpointError: the directory is missing, or holds another kind of model.
        """
        transformers = transformers_module()
        directory = model_directory(path)
        processor = load_processor(directory)
        model = load_model(transformers.AutoModelForImageTextToText, directory, dtype)
        return cls(model, processor, prompt or chat_prompt(processor, prompt_suffix), suffix_ids)

    @property
    def depth(self) -> int:
        """Layers of the language model."""
        return self.model.config.get_text_config().num_hidden_layers

    @property
    def cache_size(self) -> tuple[int, int]:
        """Heads of keys and values, and the width of a head."""
        text = self.model.config.get_text_config()
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return heads, width

    def hidden_states(self, images: Sequence[np.ndarray], instruction: str, layer: int = -1) -> ContextTokens:
        """Returns the hidden states of a layer; 0 is the embedding, -1 the last layer after its norm.

        Args:
            images: each (H, W, 3) uint8 RGB.

        Raises:
            PolicyError: the model has no such layer.
        """
        batch, output = self._run(images, instruction, output_hidden_states=True, use_cache=False)
        layers = len(output.hidden_states)
        if not -layers <= layer < layers:
            raise PolicyError(f"The model has the layers 0 to {layers - 1}; {layer} was asked for.")
        image_id = getattr(self.model.config, "image_token_id", getattr(self.model.config, "image_token_index", None))
        image_mask = batch["input_ids"] == (-1 if image_id is None else image_id)
        return ContextTokens(output.hidden_states[layer], batch["attention_mask"].bool(), image_mask)

    def cognition_token(self, images: Sequence[np.ndarray], instruction: str) -> Tensor:
        """Returns the last hidden state of the last token, (1, 1, width): CogACT's condition."""
        return self.hidden_states(images, instruction).states[:, -1:]

    def keys_values(self, images: Sequence[np.ndarray], instruction: str, layers: int) -> CachedTokens:
        """Returns the cache of the first ``layers`` layers: RDT2's condition.

        Raises:
            PolicyError: the model has fewer layers.
        """
        batch, output = self._run(images, instruction, use_cache=True)
        cache = output.past_key_values.layers
        if layers > len(cache):
            raise PolicyError(f"The model has {len(cache)} layers; the policy attends to {layers}.")
        keys = torch.stack([layer.keys for layer in cache[:layers]])
        values = torch.stack([layer.values for layer in cache[:layers]])
        return CachedTokens(keys, values, batch["attention_mask"].bool())

    @torch.inference_mode()
    def _run(self, images: Sequence[np.ndarray], instruction: str, **options: Any) -> tuple[dict[str, Tensor], Any]:
        parameter = next(self.model.parameters())
        text = self.prompt(instruction, len(images))
        batch = dict(self.processor(text=[text], images=list(images) or None, return_tensors="pt"))
        if self.suffix_ids:
            suffix = torch.tensor([self.suffix_ids])
            batch["input_ids"] = torch.cat([batch["input_ids"], suffix], dim=1)
            batch["attention_mask"] = torch.cat([batch["attention_mask"], torch.ones_like(suffix)], dim=1)
            if KINDS_OF_TOKENS in batch:
                kinds = batch[KINDS_OF_TOKENS]
                batch[KINDS_OF_TOKENS] = torch.cat([kinds, torch.zeros_like(suffix).to(kinds)], dim=1)
        if KINDS_OF_TOKENS not in inspect.signature(self.model.forward).parameters:
            batch.pop(KINDS_OF_TOKENS, None)  # models of older transformers find image tokens themselves
        batch = {
            name: value.to(parameter.device, parameter.dtype if value.is_floating_point() else None)
            for name, value in batch.items()
        }
        return batch, self.model(**batch, return_dict=True, **options)


def load_processor(directory: Path) -> Any:
    """Loads what makes model inputs of images and text.

    Raises:
        CheckpointError: a file of it is missing or damaged.
        PolicyError: it needs a package that is not installed.
    """
    transformers = transformers_module()
    if read_json(directory / "config.json").get("model_type") in QWEN:
        return QwenProcessor.from_directory(directory)
    try:
        return transformers.AutoProcessor.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (ImportError, AttributeError) as problem:  # what transformers raises where torchvision is missing
        raise PolicyError(
            f"The processor of {directory} does not load: {str(problem).strip().splitlines()[0]} If it asks for "
            "torchvision: install the one that belongs to your torch."
        ) from problem


def chat_prompt(processor: Any, suffix: str = "") -> Prompt:
    """Returns a prompt that follows the processor's chat template up to where the model would answer.

    Args:
        suffix: appended to it; RDT2 appends the token '<|quad_start|>'.
    """

    def prompt(instruction: str, images: int) -> str:
        content = [{"type": "image"}] * images + [{"type": "text", "text": instruction}]
        messages = [{"role": "user", "content": content}]
        return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) + suffix

    return prompt
