"""RDT2-FM: attends to the keys and values that a vision-language model keeps of one wide image and the instruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from torch import Tensor

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.bindings.binding import (
    Encoders,
    FamilyPolicyConfig,
    Images,
    all_of,
    check_width,
    needed,
)
from dit_policy_ros.policy.families.rdt2_fm import Rdt2Fm, Rdt2FmCache
from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.guidance.prefix import flow_corruption
from dit_policy_ros.policy.guide import Guide

SIDE = 384
"""Rows and columns of each view in the wide image."""


def side_by_side(images: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the views (H, W, 3) next to each other, each ``SIDE`` x ``SIDE``, in the order given."""
    return np.concatenate([cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in images], axis=1)


class Rdt2FmBinding:
    """Cameras in the order left, right. Without 'states' the state is zero, as in the official deployment."""

    tensors = ("keys", "values", "mask")
    lead = 0
    flow = True
    predicts = "velocity"
    corruption = staticmethod(flow_corruption)
    diffusion = None
    alone = True

    def __init__(self, network: Rdt2Fm, encoders: Encoders, config: FamilyPolicyConfig) -> None:
        """Joins them.

        Raises:
            CheckpointError: the cache has other heads than the network attends to, or channels are of another width.
        """
        c = network.config
        self.network = network
        self.config = config
        self.model = needed(encoders.vision_language, "vision_language", "rdt2_fm")
        heads, width = self.model.cache_size
        if (heads, width) != (c.kv_heads, c.head_dim):
            raise CheckpointError(
                f"The vision-language model keeps {heads} heads of {width}; this checkpoint attends to {c.kv_heads} of "
                f"{c.head_dim}. Use the model it was trained with."
            )
        if config.states is not None:
            check_width(config.states.width, c.state_widths[0], "state vector")
        check_width(config.actions.width, c.action_dim, "action vector")
        self.horizon = c.horizon
        self.like = network.model.x_pos_emb

    def look(self, images: Images, instruction: str, epoch: int) -> Mapping[str, Tensor]:
        """See ``Binding``."""
        view = side_by_side(all_of(images, self.config))
        cache = self.model.keys_values([view], instruction, min(self.network.config.depth, self.model.depth))
        return {"keys": cache.keys, "values": cache.values, "mask": cache.mask}

    def condition(self, tensors: Mapping[str, Tensor]) -> Rdt2FmCache:
        """See ``Binding``."""
        keys, values = (tensors[name].to(self.like) for name in ("keys", "values"))
        return self.network.encode(keys, values, tensors["mask"].to(self.like.device))

    def _state(self, noise: Tensor, states: Sequence[Tensor]) -> Tensor:
        return states[-1][None, None] if states else noise.new_zeros(1, 1, self.network.config.state_widths[0])

    def denoiser(self, cache: Rdt2FmCache, noise: Tensor, states: Sequence[Tensor]) -> Network:
        """See ``Binding``."""
        return self.network.velocity(cache, self._state(noise, states))

    def sample(self, cache: Rdt2FmCache, noise: Tensor, states: Sequence[Tensor], guide: Guide | None) -> Tensor:
        """See ``Binding``."""
        return self.network.sample(cache, noise, self._state(noise, states), self.config.steps, guide)
