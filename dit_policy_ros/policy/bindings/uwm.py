"""UWM as a policy: image encoder inside the checkpoint, next frames held at noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.bindings.binding import (
    Diffusion,
    Encoders,
    FamilyPolicyConfig,
    FrameHistory,
    Images,
    all_of,
    check_width,
    generator_of,
    needed,
)
from dit_policy_ros.policy.families.uwm import Uwm, UwmCache
from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.guidance.prefix import diffusion_corruption
from dit_policy_ros.policy.guide import Guide

LATENT_STRIDE = 8
"""Pixels on a side of one latent of the SDXL autoencoder."""


class UwmBinding:
    """Cameras in the alphabetical order of their names in training."""

    tensors = ("image_features", "text_features")
    lead = 0
    flow = False
    predicts = "epsilon"
    alone = True

    def __init__(self, network: Uwm, encoders: Encoders, config: FamilyPolicyConfig) -> None:
        """Joins them.

        Raises:
            CheckpointError: the condition vector or the actions are of another width, or the latents of another size.
        """
        c, frames = network.config, network.config.frames
        self.network = network
        self.config = config
        if not frames.image_shapes:
            raise CheckpointError("This checkpoint of UWM has no image encoder; convert the whole file of its release.")
        if config.frames != frames.steps:
            raise CheckpointError(f"This checkpoint sees {frames.steps} frames; 'frames' is {config.frames}.")
        self.like = network.noise_pred_net.pos_embed
        self.history = FrameHistory(self._features, len(config.cameras), config.frames, repeat=True)
        self.language, text = None, 0
        if frames.text_widths:
            self.language = needed(encoders.language, "language", "uwm")
            check_width(self.language.width, frames.text_widths[0], "language embedding")
            text = frames.text_widths[1]
        state = 0 if config.states is None else config.frames * config.states.width
        self.images = config.frames * len(config.cameras) * self.history.shape[1]
        got = self.images + state + text
        check_width(got, c.condition_width, "condition of images, states and text")
        check_width(config.actions.width, c.action_dim, "action vector")
        self.latents = self._latent_shape()
        self.horizon = c.horizon
        self.corruption = diffusion_corruption(network.schedule)
        self.diffusion = Diffusion(network.schedule, network.grid(config.steps), c.clip)

    def _latent_shape(self) -> tuple[int, ...]:
        c, frames = self.network.config, self.network.config.frames
        size = frames.crop or frames.resize
        if size is None:
            raise CheckpointError(
                "The size of the latents is unknown: config.json needs 'crop_shape' or 'resize_shape'."
            )
        shape = (len(self.config.cameras), c.channels, frames.steps, *(side // LATENT_STRIDE for side in size))
        patches = shape[0] * math.prod(n // side for n, side in zip(shape[2:], c.patch, strict=True))
        if c.horizon + patches + (c.registers or 0) != c.tokens:
            raise CheckpointError(
                f"{c.horizon} actions, {patches} patches of {len(self.config.cameras)} cameras and {c.registers or 0} "
                f"registers are not the {c.tokens} tokens of this checkpoint; correct 'cameras' or config.json."
            )
        return shape

    def _features(self, images: Sequence[np.ndarray | None]) -> Tensor:
        """(N, 1, width) of N images; one that is absent is black."""
        frames, encoder = self.network.config.frames, self.network.obs_encoder
        size = frames.resize or frames.crop or (LATENT_STRIDE, LATENT_STRIDE)
        given = [np.zeros((*size, 3), dtype=np.uint8) if image is None else image for image in images]
        rows = [encoder.transform(torch.from_numpy(image)[None, None]) for image in given]  # (1, 3, 1, H, W) each
        with torch.no_grad():
            return torch.cat([encoder(row[:, None].to(self.like)) for row in rows])[:, None]

    def look(self, images: Images, instruction: str, epoch: int) -> Mapping[str, Tensor]:
        """See ``Binding``."""
        seen = self.history(all_of(images, self.config), epoch)  # (frames, cameras, 1, width)
        text = seen.new_zeros(1, 0) if self.language is None else self.language(instruction).tokens[:, 0]
        return {"image_features": seen.transpose(0, 1).flatten()[None], "text_features": text}

    def condition(self, tensors: Mapping[str, Tensor]) -> UwmCache:
        """See ``Binding``. States join when acting; their columns are those between images and text."""
        text = tensors["text_features"].to(self.like)
        cache = self.network.encode(tensors["image_features"].to(self.like))
        if not text.shape[1]:
            return cache
        projected = self.network.obs_encoder.text_encoder["head"](text)
        start = self.network.config.condition_width - projected.shape[1]
        return cache + self.network.encode(projected, start, bias=False)

    def _fast(self, cache: UwmCache, noise: Tensor, states: Sequence[Tensor]) -> tuple[UwmCache, Tensor]:
        """Adds the states, and draws the latents of the next frames.

        Older steps that were not observed are the oldest that was.
        """
        if states:
            steps = [*[states[0]] * (self.config.frames - len(states)), *states[-self.config.frames :]]
            cache = cache + self.network.encode(torch.cat(steps)[None], self.images, bias=False)
        return cache, torch.randn(1, *self.latents, generator=generator_of(noise)).to(noise)

    def denoiser(self, cache: UwmCache, noise: Tensor, states: Sequence[Tensor]) -> Network:
        """See ``Binding``."""
        return self.network.denoiser(*self._fast(cache, noise, states), self.config.steps)

    def sample(self, cache: UwmCache, noise: Tensor, states: Sequence[Tensor], guide: Guide | None) -> Tensor:
        """See ``Binding``."""
        cache, latents = self._fast(cache, noise, states)
        return self.network.sample(cache, noise, latents, "policy", self.config.steps, guide)[0]
