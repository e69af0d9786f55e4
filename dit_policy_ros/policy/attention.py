"""Attention modules under the parameter names that PyTorch, timm and the GPT family gave them.

Every module splits the same way: ``keys_values`` of a condition, then ``forward`` from queries to them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.policy.layers import KeysValues, attend, split_heads


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """Returns (1, 1, queries, keys) bool: query i sees keys 0..i, counted from the first of both."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril()[None, None]


def rotate(x: Tensor, frequencies: Tensor, interleaved: bool = False) -> Tensor:
    """Rotary embedding of the first ``2 * len(frequencies)`` features, positions 0..N-1 (Su et al., 2021).

    Args:
        x: (..., N, head_dim) queries or keys.
        frequencies: radians per position.
        interleaved: channel 2i is paired with 2i + 1; otherwise channel i with i + len(frequencies).
    """
    positions = torch.arange(x.shape[-2], device=x.device, dtype=frequencies.dtype)
    angles = positions[:, None] * frequencies  # (N, pairs)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    turned, rest = x[..., : 2 * len(frequencies)], x[..., 2 * len(frequencies) :]
    if interleaved:
        a, b = turned.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
    else:
        a, b = turned.chunk(2, dim=-1)
        turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    return torch.cat([turned, rest], dim=-1)


class FusedAttention(nn.Module):
    """Self-attention of timm's vision transformer: one linear for q, k and v."""

    def __init__(self, width: int, heads: int, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D); the mask broadcasts to (B, heads, N, N)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))  # (B, heads, N, head_dim)
        return self.proj(attend(q, (k, v), mask))


class PackedAttention(nn.Module):
    """PyTorch's multi-head attention: the rows of ``in_proj_weight`` are q, k and v."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def keys_values(self, condition: Tensor) -> KeysValues:
        """(B, L, D) -> each (B, heads, L, head_dim)."""
        width = condition.shape[-1]
        rows = F.linear(condition, self.in_proj_weight[width:], self.in_proj_bias[width:])  # (B, L, 2D)
        keys, values = (split_heads(part, self.heads) for part in rows.chunk(2, dim=-1))
        return keys, values

    def forward(self, x: Tensor, keys_values: KeysValues | None = None, mask: Tensor | None = None) -> Tensor:
        """Attends from x (B, N, D) to ready keys and values, or to x itself without them."""
        width = x.shape[-1]
        query = split_heads(F.linear(x, self.in_proj_weight[:width], self.in_proj_bias[:width]), self.heads)
        return self.out_proj(attend(query, keys_values or self.keys_values(x), mask))


class RotaryAttention(nn.Module):
    """Self-attention with rotary positions 0..N-1 on q and k."""

    def __init__(self, width: int, heads: int, base: float) -> None:
        super().__init__()
        self.heads = heads
        self.pairs, self.base = width // heads // 2, base
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        parts = self.qkv_proj(x).chunk(3, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in parts)  # (B, heads, N, head_dim)
        frequencies = self.base ** (-torch.arange(self.pairs, device=x.device, dtype=torch.float32) / self.pairs)
        return self.out_proj(attend(rotate(q, frequencies), (rotate(k, frequencies), v)))
