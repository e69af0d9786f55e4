"""Diffusion Policy's low-dimensional transformer: the last states are all it observes, so there is no slow system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.bindings.binding import (
    Diffusion,
    Encoders,
    FamilyPolicyConfig,
    Images,
    check_width,
    generator_of,
)
from dit_policy_ros.policy.families.diffusion_policy_transformer import DiffusionTransformer, DiffusionTransformerCache
from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.guidance.prefix import diffusion_corruption
from dit_policy_ros.policy.guide import Guide


class DiffusionTransformerBinding:
    """The first actions of a sample lie before the observation, one for every older observation step."""

    tensors = ("nothing",)
    """A context needs a tensor; this one says nothing."""
    flow = False

    def __init__(self, network: DiffusionTransformer, encoders: Encoders, config: FamilyPolicyConfig) -> None:
        """Joins them.

        Raises:
            CheckpointError: states, their number or the actions are of another width than the network's.
        """
        c = network.config
        self.network = network
        self.config = config
        known = dict(c.normalized)
        width = c.condition_dim or c.input_dim - c.action_dim
        check_width(0 if config.states is None else config.states.width, known.get("obs", width), "observed state")
        check_width(config.actions.width, c.action_dim, "action vector")
        if config.frames != c.observation_steps:
            raise CheckpointError(
                f"This checkpoint sees {c.observation_steps} observation steps; 'frames' is {config.frames}."
            )
        self.horizon = c.positions - (0 if c.condition_tokens else 1)
        self.lead = config.frames - 1
        self.predicts = c.prediction
        self.corruption = diffusion_corruption(c.schedule)
        self.diffusion = Diffusion(c.schedule, c.grid(config.steps), c.clip)
        self.alone = c.condition_dim is not None  # else future observations are denoised too
        self.like = network.model.pos_emb

    def look(self, images: Images, instruction: str, epoch: int) -> Mapping[str, Tensor]:
        """See ``Binding``."""
        return {"nothing": torch.zeros(1)}

    def condition(self, tensors: Mapping[str, Tensor]) -> None:
        """See ``Binding``."""

    def _encoded(self, states: Sequence[Tensor]) -> DiffusionTransformerCache:
        """Older steps that were not observed are the oldest that was."""
        steps = [*[states[0]] * (self.config.frames - len(states)), *states[-self.config.frames :]]
        return self.network.encode(torch.stack(steps)[None])

    def denoiser(self, cache: None, noise: Tensor, states: Sequence[Tensor]) -> Network:
        """See ``Binding``."""
        return partial(self.network, self._encoded(states))

    def sample(self, cache: None, noise: Tensor, states: Sequence[Tensor], guide: Guide | None) -> Tensor:
        """See ``Binding``."""
        c, generator = self.network.config, generator_of(noise)
        painted = torch.randn(1, self.horizon, c.input_dim - c.action_dim, generator=generator)
        start = torch.cat([noise, painted.to(noise)], dim=-1)
        changes = {} if self.config.steps is None else {"sampler": "ddim", "steps": self.config.steps}
        sample = self.network.sample(self._encoded(states), start, guide=guide, generator=generator, **changes)
        return sample[..., : c.action_dim]
