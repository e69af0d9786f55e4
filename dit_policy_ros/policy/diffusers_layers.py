"""Attention and feed-forward under the parameter names of diffusers, biases everywhere."""

from __future__ import annotations

from torch import Tensor, nn

from dit_policy_ros.policy.layers import KeysValues, attend, gelu_tanh, split_heads


class Attention(nn.Module):
    """Multi-head attention of diffusers, biases everywhere."""

    def __init__(self, width: int, heads: int, context_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(context_width, width)
        self.to_v = nn.Linear(context_width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def keys_values(self, context: Tensor) -> KeysValues:
        """(B, L, context_width) -> each (B, heads, L, head_dim)."""
        keys, values = (split_heads(layer(context), self.heads) for layer in (self.to_k, self.to_v))
        return keys.contiguous(), values.contiguous()

    def forward(self, x: Tensor, keys_values: KeysValues | None = None, mask: Tensor | None = None) -> Tensor:
        """Attends from x (B, N, D) to ready keys and values, or to x itself without them."""
        query = split_heads(self.to_q(x), self.heads)
        return self.to_out[0](attend(query, keys_values or self.keys_values(x), mask))


class FeedForward(nn.Module):
    """Linear, GELU, linear, under the names of diffusers."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        first = nn.ModuleDict({"proj": nn.Linear(width, hidden)})
        self.net = nn.ModuleList([first, gelu_tanh(), nn.Linear(hidden, width)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.net[2](self.net[1](self.net[0]["proj"](x)))
