"""Language features: from T5, or from a file made once on a larger machine, since T5-XXL seldom fits on a robot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.encoders.hub import load_model, model_directory, transformers_module
from dit_policy_ros.policy.weights import read_tensors, read_torch_file


class LanguageFeatures(NamedTuple):
    """Features of one instruction."""

    tokens: Tensor
    """(1, L, width)."""
    mask: Tensor
    """(1, L) bool, True for words."""


class T5Encoder:
    """The encoder half of T5 from a local directory, as RDT and H-RDT use T5-v1.1-XXL."""

    def __init__(self, model: torch.nn.Module, tokenizer: object, max_tokens: int = 1024) -> None:
        """Wraps a transformers model and tokenizer; ``from_directory`` is the usual way."""
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    @classmethod
    def from_directory(cls, path: str | Path, max_tokens: int = 1024, dtype: torch.dtype = torch.bfloat16) -> T5Encoder:
        """Loads the encoder and its tokenizer.

        Raises:
            CheckpointError: the directory is missing, or holds another kind of model.
        """
        transformers = transformers_module()
        directory = model_directory(path)
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
        return cls(load_model(transformers.T5EncoderModel, directory, dtype), tokenizer, max_tokens)

    @property
    def width(self) -> int:
        """Width of a feature."""
        return self.model.config.d_model

    @torch.inference_mode()
    def __call__(self, instruction: str) -> LanguageFeatures:
        """Encodes one instruction without padding; what exceeds ``max_tokens`` is cut."""
        batch = self.tokenizer([instruction], truncation=True, max_length=self.max_tokens, return_tensors="pt")
        device = next(self.model.parameters()).device
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        return LanguageFeatures(self.model(input_ids=ids, attention_mask=mask).last_hidden_state, mask.bool())


class LanguageFile:
    """Precomputed features by instruction: a safetensors file with one (L, width) tensor for each."""

    def __init__(self, embeddings: Mapping[str, Tensor]) -> None:
        """Takes (L, width) features by instruction.

        Raises:
            CheckpointError: they are of different widths, so at least one is of another encoder.
        """
        self.embeddings = dict(embeddings)
        widths = sorted({value.shape[-1] for value in self.embeddings.values()})
        if len(widths) > 1:
            raise CheckpointError(f"Language embeddings of the widths {widths} are mixed; make all with one encoder.")
        self.width = widths[0] if widths else 0
        self.tokens = max((len(value) for value in self.embeddings.values()), default=0)
        """Of the longest."""

    @classmethod
    def load(cls, path: str | Path) -> LanguageFile:
        """Reads a file that ``save`` wrote.

        Raises:
            CheckpointError: it is missing, damaged, or holds something else.
        """
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"There is no file of language embeddings {path}; make one with LanguageFile.save.")
        embeddings = read_tensors(path)
        wrong = [f"'{name}' {tuple(value.shape)}" for name, value in embeddings.items() if value.ndim != 2]
        if wrong or not embeddings:
            raise CheckpointError(
                f"{path} must hold (tokens, width) embeddings by instruction; got {', '.join(wrong) or 'nothing'}."
            )
        broken = [name for name, value in embeddings.items() if not value.isfinite().all()]
        if broken:
            raise CheckpointError(f"{path}: the embedding of '{broken[0]}' is not finite; embed the sentence again.")
        return cls(embeddings)

    @classmethod
    def from_official(cls, instruction: str, path: str | Path) -> LanguageFile:
        """Reads the ``.pt`` file of RDT's ``encode_lang.py``: 'embeddings' (1, L, width) or (L, width), or bare.

        Raises:
            CheckpointError: it holds code, is damaged, or has no such tensor.
        """
        tensors = read_torch_file(Path(path))
        value = tensors.get("embeddings", tensors.get(""))
        if value is None or value.squeeze(0).ndim != 2:
            raise CheckpointError(f"{path} has no 'embeddings' of (1, tokens, width); it has {', '.join(tensors)}.")
        return cls({instruction: value.squeeze(0)})

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file."""
        save_file({name: value.contiguous() for name, value in self.embeddings.items()}, Path(path))

    def __call__(self, instruction: str) -> LanguageFeatures:
        """Returns the features of an instruction, word for word.

        Raises:
            PolicyError: the file does not have it.
        """
        if instruction not in self.embeddings:
            known = "', '".join(sorted(self.embeddings))
            raise PolicyError(f"No precomputed embedding for '{instruction}'. The file has: '{known}'.")
        tokens = self.embeddings[instruction][None]
        return LanguageFeatures(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))
