"""Policies whose context is a vision-language model: CogACT's cognition token, GR00T's hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.bindings.binding import (
    Diffusion,
    Encoders,
    FamilyPolicyConfig,
    Images,
    all_of,
    blind,
    check_width,
    needed,
)
from dit_policy_ros.policy.encoders.vlm import VisionLanguageModel
from dit_policy_ros.policy.families.cogact import CogAct, CogActCache
from dit_policy_ros.policy.families.gr00t_n15 import Gr00tN15
from dit_policy_ros.policy.families.gr00t_n16 import Gr00tN16
from dit_policy_ros.policy.gr00t import Gr00tCache
from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.guidance.prefix import diffusion_corruption, flow_corruption
from dit_policy_ros.policy.guide import Guide


class CogActBinding:
    """Sees one image and the instruction; knows no proprioception."""

    tensors = ("cognition_token",)
    lead = 0
    flow = False
    predicts = "epsilon"
    alone = True

    def __init__(self, network: CogAct, encoders: Encoders, config: FamilyPolicyConfig) -> None:
        """Joins them.

        Raises:
            CheckpointError: tokens or channels are of another width, or guidance is asked for and not possible.
            PolicyError: no stride gives the number of steps.
        """
        c = network.config
        self.network = network
        self.config = config
        self.model = needed(encoders.vision_language, "vision_language", "cogact")
        check_width(_hidden_width(self.model), c.token_width, "cognition token")
        check_width(config.actions.width, c.action_dim, "action vector")
        blind(config, "cogact")
        scale = c.guidance_scale if config.guidance_scale is None else config.guidance_scale
        if scale > 1 and c.null_width != c.token_width:
            raise CheckpointError(
                f"The null token is {c.null_width} wide, the cognition token {c.token_width}; set guidance_scale to 1."
            )
        self.diffusion = Diffusion(network.schedule, network.grid(config.steps))
        self.horizon = c.horizon
        self.corruption = diffusion_corruption(network.schedule)
        self.like = network.net.positional_embedding

    def look(self, images: Images, instruction: str, epoch: int) -> Mapping[str, Tensor]:
        """See ``Binding``."""
        return {"cognition_token": self.model.cognition_token(all_of(images, self.config), instruction)}

    def condition(self, tensors: Mapping[str, Tensor]) -> CogActCache:
        """See ``Binding``."""
        return self.network.encode(tensors["cognition_token"].to(self.like))

    def denoiser(self, cache: CogActCache, noise: Tensor, states: Sequence[Tensor]) -> Network:
        """See ``Binding``."""
        return self.network.denoiser(cache, self.config.guidance_scale)

    def sample(self, cache: CogActCache, noise: Tensor, states: Sequence[Tensor], guide: Guide | None) -> Tensor:
        """See ``Binding``."""
        return self.network.sample(cache, noise, self.config.steps, self.config.guidance_scale, guide=guide)


class Gr00tBinding:
    """GR00T N1.5 and N1.6. Channels stand at the beginning of the padded vectors."""

    tensors = ("states", "mask", "image_mask")
    lead = 0
    flow = True
    predicts = "velocity"
    corruption = staticmethod(flow_corruption)
    diffusion = None
    alone = True

    def __init__(self, network: Gr00tN15 | Gr00tN16, encoders: Encoders, config: FamilyPolicyConfig) -> None:
        """Joins them.

        Raises:
            CheckpointError: features or channels are of another width, or the embodiment is unknown.
        """
        c = network.config
        self.network = network
        self.config = config
        self.layer = encoders.layer
        self.model = needed(encoders.vision_language, "vision_language", "gr00t")
        check_width(_hidden_width(self.model), c.backbone_width, "vision-language feature")
        layers = self.model.model.config.get_text_config().num_hidden_layers
        if not -layers - 1 <= self.layer <= layers:
            raise CheckpointError(f"The vision-language model has layers 0 to {layers}; {self.layer} was asked for.")
        check_width(0 if config.states is None else config.states.width, c.state_dim, "state vector")
        check_width(config.actions.width, c.action_dim, "action vector")
        if not 0 <= config.embodiment < c.embodiments:
            raise CheckpointError(f"Embodiment {config.embodiment} is not in the checkpoint; 0 to {c.embodiments - 1}.")
        self.horizon = c.horizon
        self.like = network.model.proj_out_2.weight

    def look(self, images: Images, instruction: str, epoch: int) -> Mapping[str, Tensor]:
        """See ``Binding``."""
        tokens = self.model.hidden_states(all_of(images, self.config), instruction, self.layer)
        return {"states": tokens.states, "mask": tokens.mask, "image_mask": tokens.image_mask}

    def condition(self, tensors: Mapping[str, Tensor]) -> Gr00tCache:
        """See ``Binding``."""
        features = tensors["states"].to(self.like)
        if isinstance(self.network, Gr00tN15):
            return self.network.encode(features)
        masks = (tensors[name].to(self.like.device) for name in ("mask", "image_mask"))
        return self.network.encode(features, *masks)

    def _fast(self, noise: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """State and embodiment."""
        return states[-1][None, None], torch.tensor([self.config.embodiment], device=noise.device)

    def denoiser(self, cache: Gr00tCache, noise: Tensor, states: Sequence[Tensor]) -> Network:
        """See ``Binding``."""
        return self.network.velocity(cache, *self._fast(noise, states))

    def sample(self, cache: Gr00tCache, noise: Tensor, states: Sequence[Tensor], guide: Guide | None) -> Tensor:
        """See ``Binding``."""
        return self.network.sample(cache, noise, *self._fast(noise, states), self.config.steps, guide)


def _hidden_width(model: VisionLanguageModel) -> int:
    return model.model.config.get_text_config().hidden_size
