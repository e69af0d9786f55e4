"""Single images with known answers: where does what the instruction asks for lie? From a simulator, for System 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.policy.dual_policy import image_tensor
from dit_policy_ros.policy.text import hash_words
from dit_policy_ros.train.config import TrainConfig
from dit_policy_ros.train.perturb import forget_words, jitter
from dit_policy_ros.train.samples import Phrase


@dataclass(frozen=True)
class Scenes:
    """Images of one kind of scene. N images, T things to ask for."""

    images: np.ndarray
    """(N, h, w, 3) uint8, as the slow camera's view."""
    ask: tuple[Callable[[np.random.Generator], Phrase], ...]
    """T functions, each draws a sentence that asks for its thing."""
    places: np.ndarray
    """(N, T, places) about -1..1, NaN where an answer is unknown; what they mean is up to who makes the scenes."""


@dataclass(frozen=True)
class SceneBatch:
    """Everything of one step. B scenes."""

    images: Tensor
    """(B, 3, H, W)."""
    hashed: Tensor
    """(B, words, pieces)."""
    groups: Tensor
    """(B,) int64, which instructions ask for the same."""
    places: Tensor
    """(B, places), 0 where unknown."""
    known: Tensor
    """(B, places) bool."""


class SceneSource:
    """Draws scenes: each kind as often, each image and each thing to ask for as often. Equal seeds draw equally."""

    def __init__(self, kinds: Sequence[Scenes], config: TrainConfig, seed: int) -> None:
        self._kinds = tuple(kinds)
        self._config = config
        self._rng = np.random.default_rng([seed, 3])

    def draw(self, count: int) -> SceneBatch:
        """Returns the next ``count`` scenes."""
        rng = self._rng
        images, hashed, groups, places = [], [], [], []
        for _ in range(count):
            kind = self._kinds[rng.integers(len(self._kinds))]
            index, asked = rng.integers(len(kind.images)), rng.integers(len(kind.ask))
            phrase = kind.ask[asked](rng)
            images.append(kind.images[index])
            hashed.append(hash_words(phrase.text))
            groups.append(phrase.group)
            places.append(kind.places[index, asked])
        answers = torch.from_numpy(np.stack(places)).float()
        return SceneBatch(
            images=jitter(image_tensor(np.stack(images)), self._config.brightness, rng),
            hashed=forget_words(torch.stack(hashed), self._config.unknown_words, rng),
            groups=torch.tensor(groups),
            places=answers.nan_to_num(),
            known=~answers.isnan(),
        )
