"""PyTorch's transformer layers with the norms first, split so that keys and values of a memory can be kept."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.policy.attention import PackedAttention
from dit_policy_ros.policy.layers import KeysValues


class PreNormLayer(nn.Module):
    """Self-attention, cross-attention where there is a memory, feed-forward; each after a norm and added."""

    def __init__(self, width: int, heads: int, hidden: int, cross: bool) -> None:
        super().__init__()
        self.self_attn = PackedAttention(width, heads)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        if cross:
            self.multihead_attn = PackedAttention(width, heads)
            self.norm3 = nn.LayerNorm(width)

    def forward(
        self, x: Tensor, mask: Tensor | None, memory: KeysValues | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.self_attn(self.norm1(x), mask=mask)
        if memory is None:
            return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))
        x = x + self.multihead_attn(self.norm2(x), memory, memory_mask)
        return x + self.linear2(F.gelu(self.linear1(self.norm3(x))))


class PreNormStack(nn.Module):
    """Gives its layers the name they have in a checkpoint."""

    def __init__(self, depth: int, width: int, heads: int, hidden: int, cross: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PreNormLayer(width, heads, hidden, cross) for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D) without a memory."""
        for layer in self.layers:
            x = layer(x, mask)
        return x
