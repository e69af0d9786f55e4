"""MDT, the policy of "Multimodal Diffusion Transformer: Learning Versatile Behavior from Multimodal Goals".

Same function as https://github.com/intuitive-robots/mdt_policy. With adaptive conditioning the encoder never sees the
noise level, so its output and the keys and values of every cross-attention are computed once, in ``encode``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dit_policy_ros.policy.encoder_decoder import EncoderDecoder, MdtCache
from dit_policy_ros.policy.encoders.resnet import SequentialResNet
from dit_policy_ros.policy.mdt_config import NET, MdtConfig, configure
from dit_policy_ros.policy.weights import Shapes

__all__ = ["FROZEN", "PREFIXES", "Mdt", "MdtCache", "MdtConfig", "build", "configure", "detect", "rename"]

PREFIXES = ("", "state_dict.")
FROZEN = ("visual_goal.", "language_goal.", "img_encoder.")
"""Prefixes of CLIP and Voltron in published files."""


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are an MDT."""
    return f"{NET}incam_embed.weight" in shapes and f"{NET}decoder.blocks.0.cross_att.query.weight" in shapes


def rename(name: str) -> str | None:
    """Leaves out frozen encoders and a proprioception layer that is never used."""
    return None if name.startswith((*FROZEN, f"{NET}proprio_emb.")) else name


def build(config: MdtConfig) -> Mdt:
    """Returns the network with fresh parameters."""
    return Mdt(config)


class Mdt(EncoderDecoder):
    """MDT: one token per camera from its own ResNet; the goal is a text or image embedding of CLIP."""

    def __init__(self, config: MdtConfig) -> None:
        super().__init__(config)
        for name in ("static_resnet", "gripper_resnet"):
            if any(each.startswith(f"{name}.") for each in config.shapes):
                self.add_module(name, SequentialResNet(config.shapes, f"{name}.", config.observation_width))

    def encode_images(self, static: Tensor, gripper: Tensor) -> tuple[Tensor, Tensor]:
        """Returns one token (B, 1, D) for each camera from normalised images (B, 3, H, W)."""
        return self.static_resnet(static)[:, None], self.gripper_resnet(gripper)[:, None]

    def tokens(self, static: Tensor, gripper: Tensor, goal: Tensor, contrastive: bool = False) -> Tensor:
        """Embeds camera tokens (B, 1, width) and a goal (B, 1, width).

        Args:
            contrastive: embed the goal as the contrastive loss does on language batches, with ``lang_emb``.
        """
        net, place = self.net, self.config.goal_tokens
        embed = net.lang_emb if contrastive and hasattr(net, "lang_emb") else net.goal_emb
        cameras, embedded = torch.cat([net.tok_emb(static), net.incam_embed(gripper)], dim=1), embed(goal)
        if self.config.positions and self.config.positioned:
            cameras, embedded = cameras + net.pos_emb[:, place : place + 1], embedded + net.pos_emb[:, :place]
        return torch.cat([embedded, cameras], dim=1)  # (B, 3, D)

    def encode(self, static: Tensor, gripper: Tensor, goal: Tensor) -> MdtCache:
        """Runs the encoder; a goal of zeros is no goal. See ``tokens`` for the arguments."""
        return self.encode_tokens(self.tokens(static, gripper, goal))

    def pool(self, context: Tensor) -> Tensor:
        """Returns what the contrastive loss compares, (B, D): the token of the static camera."""
        return context[:, 1]
