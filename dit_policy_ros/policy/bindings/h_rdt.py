"""H-RDT: DINOv2 and SigLIP features side by side, T5 tokens, plain joint vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.bindings.binding import Encoders, FamilyPolicyConfig, check_width
from dit_policy_ros.policy.bindings.frames_and_words import FramesAndWords
from dit_policy_ros.policy.families.h_rdt import HRdt, HRdtCache
from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.guidance.prefix import flow_corruption
from dit_policy_ros.policy.guide import Guide


class HRdtBinding(FramesAndWords):
    """Cameras in the order head, left wrist, right wrist for the released ALOHA checkpoint."""

    family = "h_rdt"
    flow = True
    predicts = "velocity"
    corruption = staticmethod(flow_corruption)
    diffusion = None

    def __init__(self, network: HRdt, encoders: Encoders, config: FamilyPolicyConfig) -> None:
        """Joins them.

        Raises:
            CheckpointError: features or channels are of another width than the network's, or too many.
        """
        c = network.config
        self.network = network
        tokens = self._join(encoders, config, c.img_widths[0], c.lang_widths[0], c.max_lang_tokens)
        if tokens > c.max_img_tokens:
            raise CheckpointError(
                f"{tokens} image tokens; this checkpoint takes at most {c.max_img_tokens}; name fewer cameras."
            )
        check_width(0 if config.states is None else config.states.width, c.state_widths[0], "state vector")
        check_width(config.actions.width, c.action_dim, "action vector")
        self.horizon = c.horizon
        self.like = network.model.x_pos_emb

    def condition(self, tensors: Mapping[str, Tensor]) -> HRdtCache:
        """See ``Binding``."""
        mask = tensors["lang_mask"].to(self.like.device)
        return self.network.encode(tensors["img_tokens"].to(self.like), tensors["lang_tokens"].to(self.like), mask)

    def denoiser(self, cache: HRdtCache, noise: Tensor, states: Sequence[Tensor]) -> Network:
        """See ``Binding``."""
        return self.network.velocity(cache, states[-1][None, None])

    def sample(self, cache: HRdtCache, noise: Tensor, states: Sequence[Tensor], guide: Guide | None) -> Tensor:
        """See ``Binding``."""
        return self.network.sample(cache, noise, states[-1][None, None], self.config.steps, guide)
