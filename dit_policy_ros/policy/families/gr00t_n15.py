"""GR00T N1.5's action head: the shared one, with self-attention over the vision-language features and future tokens.

Same function as https://github.com/NVIDIA/Isaac-GR00T (``gr00t/model/action_head``). Its mask of the vision-language
tokens is not used officially, and so does not exist here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dit_policy_ros.policy.diffusers_layers import Attention, FeedForward
from dit_policy_ros.policy.gr00t import EPS, Gr00tCache, Gr00tConfig, head_count, read_config, refuse_positions
from dit_policy_ros.policy.gr00t_head import ActionHead
from dit_policy_ros.policy.weights import Shapes, count_layers

PREFIXES = ("action_head.", "")
"""The rest of a released checkpoint, under ``backbone.``, belongs to the System 2 encoder."""


@dataclass(frozen=True)
class Gr00tN15Config(Gr00tConfig):
    """The shared configuration, and what N1.5 adds."""

    vl_depth: int = 0
    """Blocks of self-attention over the vision-language features."""
    vl_heads: int = 1
    vl_hidden: int = 0
    future_tokens: int = 0


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are the action head of GR00T N1.5."""
    names = ("action_encoder.W1.W", "model.proj_out_2.weight", "future_tokens.weight")
    return all(name in shapes for name in names)


def configure(settings: Mapping[str, Any], shapes: Shapes) -> Gr00tN15Config:
    """Returns the configuration from the official ``action_head_cfg`` and the parameter shapes.

    Raises:
        CheckpointError: a number of heads, which shapes do not tell, is unknown.
    """
    settings = settings.get("action_head_cfg", settings)
    shared = read_config(settings, shapes)
    block = "vl_self_attention.transformer_blocks."
    depth = count_layers(shapes, block)
    vl_settings = settings.get("vl_self_attention_cfg", {})
    refuse_positions(vl_settings, "vl_self_attention_cfg")
    return Gr00tN15Config(
        **shared,
        vl_depth=depth,
        vl_heads=head_count(vl_settings, shared["backbone_width"], 64, "vl_self_attention_cfg") if depth else 1,
        vl_hidden=shapes[f"{block}0.ff.net.0.proj.weight"][0] if depth else 0,
        future_tokens=shapes["future_tokens.weight"][0],
    )


def build(config: Gr00tN15Config) -> Gr00tN15:
    """Returns the network with fresh parameters."""
    return Gr00tN15(config)


class FeatureBlock(nn.Module):
    """Self-attention and feed-forward over vision-language tokens, padding included."""

    def __init__(self, c: Gr00tN15Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c.backbone_width, EPS)
        self.attn1 = Attention(c.backbone_width, c.vl_heads, c.backbone_width)
        self.norm3 = nn.LayerNorm(c.backbone_width, EPS)
        self.ff = FeedForward(c.backbone_width, c.vl_hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, backbone_width) -> same."""
        x = x + self.attn1(self.norm1(x))
        return x + self.ff(self.norm3(x))


class FeatureTransformer(nn.Module):
    """The parameters under ``vl_self_attention.``."""

    def __init__(self, c: Gr00tN15Config) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList(FeatureBlock(c) for _ in range(c.vl_depth))

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, backbone_width) -> same."""
        for block in self.transformer_blocks:
            x = block(x)
        return x


class Gr00tN15(ActionHead):
    """The action head. Vision-language features are the backbone's, as they are."""

    def __init__(self, config: Gr00tN15Config) -> None:
        super().__init__(config)
        self.future_tokens = nn.Embedding(config.future_tokens, config.width)
        self.vl_self_attention = FeatureTransformer(config)

    def encode(self, features: Tensor) -> Gr00tCache:
        """Refines the features (B, L, backbone_width) and projects the keys and values of every cross-attention.

        Raises:
            PolicyError: the features have another width.
        """
        return self.model.encode(self.vl_self_attention(self.normalized(features)), lambda number: None)
