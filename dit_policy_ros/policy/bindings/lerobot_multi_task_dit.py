"""LeRobot's multi-task DiT: CLIP vectors of every camera and observation step, with the state of each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from dit_policy_ros.policy.bindings.binding import (
    Diffusion,
    Encoders,
    FamilyPolicyConfig,
    FrameHistory,
    Images,
    check_width,
    generator_of,
    needed,
)
from dit_policy_ros.policy.families.lerobot_multi_task_dit import MultiTaskDit, MultiTaskDitCache
from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.guidance.prefix import diffusion_corruption, flow_corruption
from dit_policy_ros.policy.guide import Guide


class Seen(NamedTuple):
    """The slow half of the observation vector; the state joins it when acting."""

    cameras: Tensor
    """(1, S, cameras, width)."""
    text: Tensor | None
    """(1, width)."""


class MultiTaskDitBinding:
    """The first actions of a sample lie before the observation, one for every older observation step."""

    tensors = ("camera_features", "text_features")
    alone = True

    def __init__(self, network: MultiTaskDit, encoders: Encoders, config: FamilyPolicyConfig) -> None:
        """Joins them.

        Raises:
            CheckpointError: the observation is of another width than the network's, or the actions are.
        """
        c = network.config
        self.network = network
        self.config = config
        vision = needed(encoders.vision, "vision", "lerobot_multi_task_dit")
        self.frames = FrameHistory(vision, len(config.cameras), config.frames, repeat=True)
        self.language = None
        if c.text_widths:
            self.language = needed(encoders.language, "language", "lerobot_multi_task_dit")
            check_width(self.language.width, c.text_widths[0], "language embedding")
        state = 0 if config.states is None else config.states.width
        each = state + len(config.cameras) * self.frames.shape[1] + (c.text_widths[1] if c.text_widths else 0)
        check_width(config.frames * each, c.condition_width, "observation of state, cameras and text")
        check_width(config.actions.width, c.action_dim, "action vector")
        self.horizon = c.horizon
        self.lead = config.frames - 1
        self.flow = c.objective == "flow_matching"
        self.predicts = "velocity" if self.flow else c.prediction
        self.corruption = flow_corruption if self.flow else diffusion_corruption(c.schedule)
        self.diffusion = None
        if not self.flow:
            self.diffusion = Diffusion(c.schedule, c.grid(config.steps), c.clip)
        self.like = network.noise_predictor.input_proj.weight

    def look(self, images: Images, instruction: str, epoch: int) -> Mapping[str, Tensor]:
        """See ``Binding``."""
        cameras = self.frames(images, epoch)[:, :, 0][None]
        text = cameras.new_zeros(1, 0) if self.language is None else self.language(instruction).tokens[:, 0]
        return {"camera_features": cameras, "text_features": text}

    def condition(self, tensors: Mapping[str, Tensor]) -> Seen:
        """See ``Binding``."""
        text = tensors["text_features"].to(self.like)
        return Seen(tensors["camera_features"].to(self.like), text if text.shape[1] else None)

    def _projected(self, cache: Seen, noise: Tensor, states: Sequence[Tensor]) -> MultiTaskDitCache:
        """Older steps that were not observed are the oldest that was."""
        missing = self.config.frames - len(states)
        if not states:
            steps = noise.new_zeros(1, self.config.frames, 0)
        else:
            steps = torch.stack([*[states[0]] * missing, *states[-self.config.frames :]])[None]
        return self.network.encode(self.network.conditioning(steps, cache.cameras, cache.text))

    def denoiser(self, cache: Seen, noise: Tensor, states: Sequence[Tensor]) -> Network:
        """See ``Binding``."""
        return partial(self.network, self._projected(cache, noise, states))

    def sample(self, cache: Seen, noise: Tensor, states: Sequence[Tensor], guide: Guide | None) -> Tensor:
        """See ``Binding``."""
        projected = self._projected(cache, noise, states)
        changes = {} if self.config.steps is None else {"steps": self.config.steps}
        return self.network.sample(projected, noise, guide=guide, generator=generator_of(noise), **changes)
