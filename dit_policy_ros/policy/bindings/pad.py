"""PAD as a policy: autoencoder latents of one image, a text embedding of CLIP, and the pose where it takes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.bindings.binding import (
    Diffusion,
    Encoders,
    FamilyPolicyConfig,
    Images,
    all_of,
    check_width,
    generator_of,
    needed,
)
from dit_policy_ros.policy.families.pad import Pad, PadCache
from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.guidance.prefix import diffusion_corruption
from dit_policy_ros.policy.guide import Guide
from dit_policy_ros.policy.modalities import ACTION, DEPTH, PadSample


class PadBinding:
    """Future latents are painted along with the actions and thrown away."""

    tensors = ("latent", "text")
    lead = 0
    flow = False
    predicts = "epsilon"
    alone = False

    def __init__(self, network: Pad, encoders: Encoders, config: FamilyPolicyConfig) -> None:
        """Joins them.

        Raises:
            CheckpointError: it has no actions, needs depth maps or several cameras, or text, pose or actions are of
                another width.
        """
        c = network.config
        if ACTION not in [part.name for part in c.parts]:
            raise CheckpointError("This checkpoint of PAD paints images and has no actions; it cannot drive a robot.")
        image, action = c.parts[:2]
        self.network = network
        self.config = config
        self.tokens = action.positions
        if any(part.name == DEPTH for part in c.parts):
            raise CheckpointError("This checkpoint of PAD needs depth maps, which no policy here is fed; use 'verify'.")
        if len(config.cameras) != 1:
            raise CheckpointError(f"PAD sees one camera; got {', '.join(config.cameras)}.")
        self.latents = needed(encoders.latents, "latents", "pad")
        known = self.latents([np.zeros((8, 8, 3), dtype=np.uint8)]).shape
        check_width(known[1], image.inputs - image.moving, "latent of an image")
        check_width(known[2] * known[3] // image.patch**2, image.positions, "row of image tokens")
        self.future = (image.moving, *known[2:])
        """Shape of what is painted."""
        self.language = needed(encoders.language, "language", "pad") if c.text_width else None
        if self.language is not None:
            check_width(self.language.width, c.text_width, "language embedding")
        check_width(0 if config.states is None else config.states.width, action.inputs - action.moving, "pose")
        width = config.actions.width
        if action.moving % width or (action.moving != width and action.positions != 1):
            raise CheckpointError(
                f"The action vector is {width} wide; a token of this checkpoint holds {action.moving}."
            )
        self.horizon = action.positions * action.moving // width
        self.corruption = diffusion_corruption(network.schedule)
        self.diffusion = Diffusion(network.schedule, network.grid(config.steps))
        self.like = network.pos_embed

    def look(self, images: Images, instruction: str, epoch: int) -> Mapping[str, Tensor]:
        """See ``Binding``."""
        latent = self.latents(all_of(images, self.config))
        text = latent.new_zeros(1, 0) if self.language is None else self.language(instruction).tokens[:, 0]
        return {"latent": latent, "text": text}

    def condition(self, tensors: Mapping[str, Tensor]) -> PadCache:
        """See ``Binding``. The pose joins when acting."""
        text, pose = tensors["text"].to(self.like), None
        if self.config.states is not None:
            pose = self.like.new_zeros(1, 1, self.config.states.width)
        return self.network.encode(text if text.shape[1] else None, tensors["latent"].to(self.like), pose)

    def sample(self, cache: PadCache, noise: Tensor, states: Sequence[Tensor], guide: Guide | None) -> Tensor:
        """See ``Binding``."""
        if states:
            cache = self.network.posed(cache, states[-1][None, None])
        generator = generator_of(noise)
        future = torch.randn(1, *self.future, generator=generator).to(noise)
        start = PadSample(future, noise.reshape(1, self.tokens, -1))
        own = None if guide is None else self._reshaped(guide, noise.shape)
        sample = self.network.sample(cache, start, steps=self.config.steps, guide=own, generator=generator)
        return sample.action.reshape(noise.shape)

    def _reshaped(self, guide: Guide, shape: torch.Size) -> Guide:
        """A guide of chunks for a network that takes all actions as one token."""

        def guided(network: Network) -> Network:
            inner = guide(lambda x, t: network(x.reshape(1, self.tokens, -1), t).reshape(shape))
            return lambda x, t: inner(x.reshape(shape), t).reshape(x.shape)

        return guided
