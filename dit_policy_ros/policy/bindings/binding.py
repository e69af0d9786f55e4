"""What an observation is to a family: the port between ``FamilyPolicy`` and one architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.actions.channels import Channels
from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.caching.family import BlockWiseOptions, TaylorSeerOptions
from dit_policy_ros.policy.encoders.language import LanguageFeatures
from dit_policy_ros.policy.encoders.pixels import PixelFormat
from dit_policy_ros.policy.encoders.vlm import VisionLanguageModel
from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.guidance.joint_speed import SpeedTracking
from dit_policy_ros.policy.guidance.prefix import Corruption
from dit_policy_ros.policy.guide import Guide
from dit_policy_ros.policy.schedules import NoiseSchedule

Images = Sequence[np.ndarray | None]
"""One image (H, W, 3) uint8 RGB of each camera, in the policy's order; None where a camera is missing."""

Vision = Callable[[Images], Tensor]
"""From N images to features (N, patches, width): a ``VisionTower``, ``FusedTowers`` or ``ClipVision``."""

Language = Callable[[str], LanguageFeatures]
"""A ``T5Encoder``, ``ClipText`` or ``LanguageFile``; has a ``width``."""


Latents = Callable[[Images], Tensor]
"""From N images to autoencoder latents (N, C, h, w): a ``LatentEncoder``."""

PAINTED, REAL_TIME, SPLICED = PREFIXES = ("painted", "real_time", "spliced")
"""Written into the sample at every step; drawn there by guidance, for flow matching only; or put over the result."""


@dataclass(frozen=True)
class Encoders:
    """System 2. A family takes either vision and language, or a vision-language model."""

    language: Language | None = None
    vision: Vision | None = None
    vision_language: VisionLanguageModel | None = None
    layer: int = -1
    """Of the vision-language model's hidden states."""
    pixels: PixelFormat | None = None
    """What the image encoders inside a checkpoint take."""
    latents: Latents | None = None


@dataclass(frozen=True)
class FamilyPolicyConfig:
    """What a robot is to a checkpoint."""

    cameras: tuple[str, ...]
    """In the order of training."""
    states: Channels | None
    """None for families that see no proprioception."""
    actions: Channels
    frames: int = 1
    """Images of each camera, or observation steps; one ``encode`` after the other provides them."""
    control_hz: float = 25.0
    steps: int | None = None
    """Of the sampler; None takes the checkpoint's."""
    guidance_scale: float | None = None
    """Of classifier-free guidance, where the family has it; None takes the checkpoint's."""
    embodiment: int = 0
    """Of checkpoints that hold several."""
    cache: TaylorSeerOptions | BlockWiseOptions | None = None
    """Between the denoising steps of one chunk; None computes every step."""
    tracking: SpeedTracking | None = None
    """Bends chunks to what joints can follow; None leaves them."""
    prefix: str = PAINTED
    """How a chunk is made to begin with what is committed, one of ``PREFIXES``."""


@dataclass(frozen=True)
class Diffusion:
    """How a variance-preserving network is sampled."""

    schedule: NoiseSchedule
    timesteps: tuple[int, ...]
    """Descending."""
    clip: float | None = None
    """Bound of the absolute clean action, or None."""


class Binding(Protocol):
    """One network with its encoders."""

    tensors: tuple[str, ...]
    """Names of what a context holds."""
    horizon: int
    """Actions the network predicts."""
    lead: int
    """How many of them lie before the observation."""
    corruption: Corruption
    """How the network's noise hides known actions."""
    like: Tensor
    """A parameter, for its dtype and device."""
    flow: bool
    """Whether the network predicts a velocity."""
    predicts: str
    """What it predicts: 'velocity', 'epsilon', 'sample' or 'v'."""
    diffusion: Diffusion | None
    """None for flow matching and EDM."""
    alone: bool
    """Whether actions are all that is denoised; only then is there a ``denoiser``."""

    def look(self, images: Images, instruction: str, epoch: int) -> Mapping[str, Tensor]:
        """Returns the raw features by name: what travels in a context."""

    def condition(self, tensors: Mapping[str, Tensor]) -> Any:
        """Returns what ``sample`` takes; everything that depends on the context alone is done here."""

    def denoiser(self, cache: Any, noise: Tensor, states: Sequence[Tensor]) -> Network:
        """Returns what ``sample`` asks in every step, without guidance; the arguments are those of ``sample``."""

    def sample(self, cache: Any, noise: Tensor, states: Sequence[Tensor], guide: Guide | None) -> Tensor:
        """Returns normalised actions (1, horizon, A).

        Args:
            noise: (1, horizon, A) standard normal.
            states: normalised network vectors (S,) of the last observations, the newest last.
        """


class FrameHistory:
    """Features of the last frames of an epoch; each image is encoded once."""

    def __init__(self, vision: Vision, cameras: int, frames: int, repeat: bool = False) -> None:
        """Takes the encoder and looks at a missing camera, which tells patches and width.

        Args:
            repeat: frames before the first are copies of it, instead of missing.
        """
        self.vision = vision
        self.frames = frames
        self.repeat = repeat
        self.absent = vision([None])  # (1, patches, width)
        self.shape = (frames * cameras * self.absent.shape[1], self.absent.shape[2])
        """(tokens, width) of all frames together."""
        self._past: tuple[int, tuple[Tensor, ...]] = (-1, ())

    def __call__(self, images: Images, epoch: int) -> Tensor:
        """Returns the features (frames, cameras, patches, width), the oldest frame first."""
        now = self.vision(images)
        past_epoch, past = self._past
        history = (*(past if past_epoch == epoch else ()), now)[-self.frames :]
        self._past = (epoch, history)
        before = history[0] if self.repeat else self.absent.expand_as(now)
        return torch.stack([*[before] * (self.frames - len(history)), *history])


def needed(encoder: Any, what: str, family: str) -> Any:
    """Returns an encoder.

    Raises:
        CheckpointError: there is none.
    """
    if encoder is None:
        raise CheckpointError(f"The family '{family}' needs a {what} encoder; name one under 'encoders'.")
    return encoder


def check_width(got: int, wanted: int, what: str) -> None:
    """Refuses an encoder, file or channel set of another width than the network takes.

    Raises:
        CheckpointError: they differ.
    """
    if got != wanted:
        raise CheckpointError(
            f"The {what} is {got} wide, but this checkpoint takes {wanted}; use the one it was trained with."
        )


def all_of(images: Images, config: FamilyPolicyConfig) -> Sequence[np.ndarray]:
    """Returns the images of every camera.

    Raises:
        PolicyError: one is missing, and the family has no picture that stands for it.
    """
    missing = [name for name, image in zip(config.cameras, images, strict=True) if image is None]
    if missing:
        raise PolicyError(f"Camera {', '.join(missing)} is missing, and this family needs every one.")
    return images


def generator_of(noise: Tensor) -> torch.Generator:
    """Returns the source of what else a sampler draws, settled by its start: the same start, the same actions."""
    seed = noise.flatten()[0].cpu().float().view(torch.int32).item()
    return torch.Generator().manual_seed(seed % 2**31)


def blind(config: FamilyPolicyConfig, family: str) -> None:
    """Refuses proprioception for a family that takes none.

    Raises:
        CheckpointError: the policy has 'states'.
    """
    if config.states is not None:
        raise CheckpointError(f"The family '{family}' sees no proprioception; remove 'states' from the policy.")
