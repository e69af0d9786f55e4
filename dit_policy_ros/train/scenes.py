"""Single images with known answers: where does what the instruction asks for lie? From a simulator, for System 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.policy.dual_policy import image_tensor
from dit_policy_ros.train.config import TrainConfig
from dit_policy_ros.train.perturb import jitter
from dit_policy_ros.train.phrase import Phrase, obscured


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
    """Draws scenes: each thing to ask for as often, each of its images as often. Equal seeds draw equally."""

    def __init__(self, kinds: Sequence[Scenes], config: TrainConfig, seed: int) -> None:
        self._questions = [(kind, asked) for kind in kinds for asked in range(len(kind.ask))]
        self._config = config
        self._rng = np.random.default_rng([seed, 3])

    def draw(self, count: int) -> SceneBatch:
        """Returns the next ``count`` scenes."""
        rng = self._rng
        images, said, places = [], [], []
        for _ in range(count):
            kind, asked = self._questions[rng.integers(len(self._questions))]
            index = rng.integers(len(kind.images))
            images.append(kind.images[index])
            said.append(kind.ask[asked](rng))
            places.append(kind.places[index, asked])
        answers = torch.from_numpy(np.stack(places)).float()
        return SceneBatch(
            images=jitter(image_tensor(np.stack(images)), self._config.brightness, rng),
            hashed=obscured(said, self._config, rng),
            groups=torch.tensor([phrase.group for phrase in said]),
            places=answers.nan_to_num(),
            known=~answers.isnan(),
        )
