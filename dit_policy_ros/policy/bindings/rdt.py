"""RDT: SigLIP tokens of two frames and three cameras, T5 tokens, the unified space with its mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.bindings.binding import (
    Encoders,
    FamilyPolicyConfig,
    FrameHistory,
    Images,
    check_width,
    needed,
)
from dit_policy_ros.policy.families.rdt import Rdt, RdtCache
from dit_policy_ros.policy.guidance.prefix import diffusion_corruption
from dit_policy_ros.policy.guide import Guide


class RdtBinding:
    """A missing camera becomes the mean colour, as in the official deployment."""

    tensors = ("lang_tokens", "lang_mask", "img_tokens")
    lead = 0
    flow = False

    def __init__(self, network: Rdt, encoders: Encoders, config: FamilyPolicyConfig) -> None:
        """Joins them.

        Raises:
            CheckpointError: features or channels are of another width or number than the network's.
        """
        c = network.config
        self.network = network
        self.config = config
        self.language = needed(encoders.language, "language", "rdt")
        self.frames = FrameHistory(needed(encoders.vision, "vision", "rdt"), len(config.cameras), config.frames)
        tokens, width = self.frames.shape
        check_width(width, c.img_widths[0], "image feature")
        check_width(self.language.width, c.lang_widths[0], "language embedding")
        if tokens != c.img_tokens:
            raise CheckpointError(
                f"{config.frames} frames of {len(config.cameras)} cameras make {tokens} image tokens; this checkpoint "
                f"takes {c.img_tokens}."
            )
        if config.states is None or (config.states.mask != config.actions.mask).any():
            raise CheckpointError("RDT has one mask: states and actions must fill the same slots.")
        check_width(config.actions.width, c.action_dim, "action vector")
        self.horizon = c.horizon
        self.predicts = c.prediction
        self.corruption = diffusion_corruption(network.schedule)
        self.like = network.model.x_pos_embed

    def look(self, images: Images, instruction: str, epoch: int) -> Mapping[str, Tensor]:
        """See ``Binding``."""
        words = self.language(instruction)
        img = self.frames(images, epoch).flatten(0, 2)[None]
        return {"lang_tokens": words.tokens, "lang_mask": words.mask, "img_tokens": img}

    def condition(self, tensors: Mapping[str, Tensor]) -> RdtCache:
        """See ``Binding``."""
        mask = tensors["lang_mask"].to(self.like.device)
        return self.network.encode(tensors["lang_tokens"].to(self.like), tensors["img_tokens"].to(self.like), mask)

    def sample(self, cache: RdtCache, noise: Tensor, states: Sequence[Tensor], guide: Guide | None) -> Tensor:
        """See ``Binding``."""
        state, mask = states[-1][None, None], torch.from_numpy(self.config.actions.mask).to(noise)[None, None]
        frequency_hz = torch.tensor([self.config.control_hz], device=noise.device)
        return self.network.sample(cache, noise, state, mask, frequency_hz, self.config.steps, guide)
