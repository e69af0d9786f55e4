"""GR00T N1.6's action head: the shared one, with cross-attention that alternates between text and image tokens.

Same function as https://github.com/NVIDIA/Isaac-GR00T (``gr00t/model/gr00t_n1d6``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.gr00t import Gr00tCache, Gr00tConfig, read_config
from dit_policy_ros.policy.gr00t_head import ActionHead
from dit_policy_ros.policy.weights import Shapes

PREFIXES = ("action_head.", "")
"""The rest of a released checkpoint, under ``backbone.``, belongs to the System 2 encoder."""


@dataclass(frozen=True)
class Gr00tN16Config(Gr00tConfig):
    """The shared configuration, and what N1.6 adds."""

    alternate: bool = True
    """Cross-attention sees either text or image tokens; otherwise all of them, padding included."""
    text_every: int = 2
    """Cross-attention blocks 0, 2 n, 4 n, ... see text, the others images."""
    mask_token: tuple[int, ...] | None = None
    """Shape of the token that stands for a dropped state; None without state dropout in training."""


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are the action head of GR00T N1.6."""
    return (
        "action_encoder.W1.W" in shapes
        and "model.proj_out_2.weight" in shapes
        and "future_tokens.weight" not in shapes
        and not any(name.startswith("vl_self_attention.") for name in shapes)
    )


def configure(settings: Mapping[str, Any], shapes: Shapes) -> Gr00tN16Config:
    """Returns the configuration from the official ``config.json`` and the parameter shapes.

    Raises:
        CheckpointError: the number of heads, which shapes do not tell, is unknown.
    """
    return Gr00tN16Config(
        **read_config(settings, shapes),
        alternate=settings.get("use_alternate_vl_dit", True),
        text_every=settings.get("attend_text_every_n_blocks", 2),
        mask_token=shapes.get("mask_token"),
    )


def build(config: Gr00tN16Config) -> Gr00tN16:
    """Returns the network with fresh parameters."""
    return Gr00tN16(config)


class Gr00tN16(ActionHead):
    """The action head. Vision-language features are the backbone's, as they are."""

    loss_eps = 1e-6

    def __init__(self, config: Gr00tN16Config) -> None:
        super().__init__(config)
        if config.mask_token is not None:
            self.mask_token = nn.Parameter(torch.zeros(config.mask_token))

    def encode(self, features: Tensor, mask: Tensor | None = None, image_mask: Tensor | None = None) -> Gr00tCache:
        """Projects the cross-attention keys and values of every block.

        Args:
            features: (B, L, backbone_width) hidden states of the vision-language model.
            mask: (B, L) bool, True for valid tokens; None takes all.
            image_mask: (B, L) bool, True for image tokens. Every sample needs a valid token of each kind.

        Raises:
            PolicyError: the features have another width, or the head alternates and there is no image mask.
        """
        return self.model.encode(self.normalized(features), self.mask_of(mask, image_mask))

    def mask_of(self, mask: Tensor | None, image_mask: Tensor | None) -> Callable[[int], Tensor | None]:
        """Returns the function from a block's number to the (B, L) tokens that it attends to."""
        if not self.config.alternate:
            return lambda number: None
        if image_mask is None:
            raise PolicyError("GR00T N1.6 needs to know which tokens are image tokens; pass 'image_mask' to encode.")
        valid = torch.ones_like(image_mask, dtype=torch.bool) if mask is None else mask.bool()
        image_mask = image_mask.bool()
        text, image = valid & ~image_mask, valid & image_mask
        return lambda number: text if number % (2 * self.config.text_every) == 0 else image
