"""Adaptive-norm blocks of "Scalable Diffusion Models with Transformers", shared by families that differ in names."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.policy.attention import FusedAttention
from dit_policy_ros.policy.layers import Mlp, modulate

EPS = 1e-6


def modulation(condition: int, hidden: int, vectors: int) -> nn.Sequential:
    """Returns SiLU and the linear to this many modulation vectors, as in a checkpoint's ``adaLN_modulation``."""
    return nn.Sequential(nn.SiLU(), nn.Linear(condition, vectors * hidden))


def part_of(adaptive: nn.Sequential, features: Tensor, start: int, bias: bool) -> Tensor:
    """Returns what some features of a condition add to its modulation vectors.

    The linear layer acts on SiLU of each feature, so a condition that is a slow part beside a fast one is projected
    in two halves, and the slow half once.

    Args:
        features: (B, F), those that begin at column ``start`` of the condition.
        bias: add the bias; exactly one part does.
    """
    linear = adaptive[1]
    weight = linear.weight[:, start : start + features.shape[-1]]
    return F.linear(F.silu(features), weight, linear.bias if bias else None)


def plain_norm(x: Tensor) -> Tensor:
    """Layer norm without parameters over the last axis."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


def gated_block(
    x: Tensor, vectors: Tensor, attention: Callable[[Tensor], Tensor], feed_forward: Callable[[Tensor], Tensor]
) -> Tensor:
    """Runs attention and feed-forward on modulated norms, gated and added.

    Args:
        x: (B, N, D).
        vectors: (B, 6 D): shift, scale and gate of the attention, then of the feed-forward.
    """
    shift1, scale1, gate1, shift2, scale2, gate2 = vectors.chunk(6, dim=-1)  # (B, D) each
    x = x + gate1[:, None] * attention(modulate(plain_norm(x), shift1, scale1))
    return x + gate2[:, None] * feed_forward(modulate(plain_norm(x), shift2, scale2))


class AdaptiveBlock(nn.Module):
    """The block under its timm names."""

    def __init__(
        self, hidden: int, heads: int, mlp_hidden: int, condition: int, activation: nn.Module, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        self.attn = FusedAttention(hidden, heads, qkv_bias)
        self.mlp = Mlp(hidden, mlp_hidden, hidden, activation)
        self.adaLN_modulation = modulation(condition, hidden, 6)

    def forward(self, x: Tensor, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) with (B, 6 D) modulation vectors -> (B, N, D)."""
        return gated_block(x, vectors, lambda tokens: self.attn(tokens, mask), self.mlp)


class AdaptiveHead(nn.Module):
    """Modulated norm and a linear layer."""

    def __init__(self, hidden: int, condition: int) -> None:
        super().__init__()
        self.adaLN_modulation = modulation(condition, hidden, 2)
        self.linear = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        shift, scale = vectors.chunk(2, dim=-1)
        return self.linear(modulate(plain_norm(x), shift, scale))
