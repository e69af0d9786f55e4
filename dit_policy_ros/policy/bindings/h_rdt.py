"""H-RDT: DINOv2 and SigLIP features side by side, T5 tokens, plain joint vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from dit_policy_ros.policy.families.h_rdt import HRdt, HRdtCache
from dit_policy_ros.policy.guidance.prefix import flow_corruption
from dit_policy_ros.policy.guide import Guide


class HRdtBinding:
    """Cameras in the order head, left wrist, right wrist for the released ALOHA checkpoint."""

    tensors = ("lang_tokens", "lang_mask", "img_tokens")
    lead = 0
    flow = True
    predicts = "velocity"
    corruption = staticmethod(flow_corruption)

    def __init__(self, network: HRdt, encoders: Encoders, config: FamilyPolicyConfig) -> None:
        """Joins them.

        Raises:
            CheckpointError: features or channels are of another width than the network's, or too many.
        """
        c = network.config
        self.network = network
        self.config = config
        self.language = needed(encoders.language, "language", "h_rdt")
        self.frames = FrameHistory(needed(encoders.vision, "vision", "h_rdt"), len(config.cameras), config.frames)
        tokens, width = self.frames.shape
        check_width(width, c.img_widths[0], "image feature")
        check_width(self.language.width, c.lang_widths[0], "language embedding")
        if tokens > c.max_img_tokens:
            raise CheckpointError(f"{tokens} image tokens; this checkpoint takes at most {c.max_img_tokens}.")
        check_width(0 if config.states is None else config.states.width, c.state_widths[0], "state vector")
        check_width(config.actions.width, c.action_dim, "action vector")
        self.horizon = c.horizon
        self.like = network.model.x_pos_emb

    def look(self, images: Images, instruction: str, epoch: int) -> Mapping[str, Tensor]:
        """See ``Binding``."""
        words = self.language(instruction)
        img = self.frames(images, epoch).flatten(0, 2)[None]
        return {"lang_tokens": words.tokens, "lang_mask": words.mask, "img_tokens": img}

    def condition(self, tensors: Mapping[str, Tensor]) -> HRdtCache:
        """See ``Binding``."""
        mask = tensors["lang_mask"].to(self.like.device)
        return self.network.encode(tensors["img_tokens"].to(self.like), tensors["lang_tokens"].to(self.like), mask)

    def sample(self, cache: HRdtCache, noise: Tensor, states: Sequence[Tensor], guide: Guide | None) -> Tensor:
        """See ``Binding``."""
        return self.network.sample(cache, noise, states[-1][None, None], self.config.steps, guide)
