"""RDT: SigLIP tokens of two frames and three cameras, T5 tokens, the unified space with its mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.bindings.binding import Diffusion, Encoders, FamilyPolicyConfig, check_width
from dit_policy_ros.policy.bindings.frames_and_words import FramesAndWords
from dit_policy_ros.policy.families.rdt import Rdt, RdtCache
from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.guidance.prefix import diffusion_corruption
from dit_policy_ros.policy.guide import Guide


class RdtBinding(FramesAndWords):
    """A missing camera becomes the mean colour, as in the official deployment."""

    family = "rdt"
    flow = False

    def __init__(self, network: Rdt, encoders: Encoders, config: FamilyPolicyConfig) -> None:
        """Joins them.

        Raises:
            CheckpointError: features or channels are of another width or number than the network's.
        """
        c = network.config
        self.network = network
        tokens = self._join(encoders, config, c.img_widths[0], c.lang_widths[0], c.max_lang_tokens)
        if tokens != c.img_tokens:
            raise CheckpointError(
                f"{config.frames} frames of {len(config.cameras)} cameras make {tokens} image tokens; this checkpoint "
                f"takes {c.img_tokens}; change 'cameras' or 'frames'."
            )
        if config.states is None or (config.states.mask != config.actions.mask).any():
            raise CheckpointError("RDT has one mask: states and actions must fill the same slots.")
        check_width(config.actions.width, c.action_dim, "action vector")
        self.horizon = c.horizon
        self.predicts = c.prediction
        self.corruption = diffusion_corruption(network.schedule)
        self.diffusion = Diffusion(network.schedule, network.grid(config.steps))
        self.like = network.model.x_pos_embed

    def condition(self, tensors: Mapping[str, Tensor]) -> RdtCache:
        """See ``Binding``."""
        mask = tensors["lang_mask"].to(self.like.device)
        return self.network.encode(tensors["lang_tokens"].to(self.like), tensors["img_tokens"].to(self.like), mask)

    def _fast(self, noise: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """State, mask and control frequency."""
        mask = torch.from_numpy(self.config.actions.mask).to(noise)[None, None]
        return states[-1][None, None], mask, torch.tensor([self.config.control_hz], device=noise.device)

    def denoiser(self, cache: RdtCache, noise: Tensor, states: Sequence[Tensor]) -> Network:
        """See ``Binding``."""
        return self.network.denoiser(cache, *self._fast(noise, states))

    def sample(self, cache: RdtCache, noise: Tensor, states: Sequence[Tensor], guide: Guide | None) -> Tensor:
        """See ``Binding``."""
        return self.network.sample(cache, noise, *self._fast(noise, states), self.config.steps, guide)
