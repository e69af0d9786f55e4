"""Sentences as training shows them: with words that nobody knows, and with words left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.policy.text import BUCKETS, hash_words
from dit_policy_ros.train.config import TrainConfig

NO_GROUP = -100
"""Of an instruction whose meaning is known from its episode alone."""


@dataclass(frozen=True)
class Phrase:
    """One way to ask for something."""

    text: str
    group: int = NO_GROUP
    """Number shared by all sentences that ask for the same."""
    kept: tuple[str, ...] = ()
    """Words without which it would ask for something else, or for nothing."""


def obscured(phrases: Sequence[Phrase], config: TrainConfig, rng: np.random.Generator) -> Tensor:
    """Hashes sentences, some words of each replaced by random pieces and some left out, the order kept.

    Args:
        config: gives the largest share of either; how much a sentence loses is drawn from 0 to that.

    Returns:
        (B, words, pieces) of ``text.hash_words``.
    """
    hashed = torch.stack([hash_words(phrase.text) for phrase in phrases])
    needed = torch.stack([_is_one_of(phrase.kept, row) for phrase, row in zip(phrases, hashed, strict=True)])
    lost = _chosen(config.unknown_words, needed, rng)
    strange = torch.from_numpy(rng.integers(1, BUCKETS, hashed.shape))
    hashed = torch.where(lost[..., None] & (hashed != 0), strange, hashed)
    left_out = _chosen(config.left_out_words, needed, rng)
    # A stable sort moves what is left out behind the rest.
    order = left_out.to(torch.uint8).argsort(dim=1, stable=True)
    hashed = hashed.masked_fill(left_out[..., None], 0)
    return hashed.gather(1, order[..., None].expand_as(hashed))


def _is_one_of(words: tuple[str, ...], hashed: Tensor) -> Tensor:
    """(words, pieces) -> (words,) bool; the first piece is the word itself."""
    return torch.isin(hashed[:, 0], _names(words)) & (hashed[:, 0] != 0)


@cache
def _names(words: tuple[str, ...]) -> Tensor:
    return hash_words(" ".join(words))[:, 0]


def _chosen(largest: float, needed: Tensor, rng: np.random.Generator) -> Tensor:
    """Picks words of each sentence, (B, words) bool, none of the needed ones."""
    share = rng.uniform(0.0, largest, (len(needed), 1))
    return torch.from_numpy(rng.random(needed.shape) < share) & ~needed
