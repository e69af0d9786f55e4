"""Attention of RDT: queries and keys are normalised per head by what timm called RMSNorm up to 1.0.12."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dit_policy_ros.policy.layers import KeysValues, attend, split_heads

EPS = 1e-6


class StdNorm(nn.Module):
    """The 'RMSNorm' of timm up to 1.0.12: divides by the unbiased standard deviation without centring; gain only."""

    def __init__(self, width: int, mean_square: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.mean_square = mean_square

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (..., width)."""
        wide = x.float()
        if self.mean_square:
            power = wide.square().mean(-1, keepdim=True)
        else:  # Tensor.var is ten times slower on a CPU
            centred = wide - wide.mean(-1, keepdim=True)
            power = centred.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)
        return (wide * torch.rsqrt(power + EPS)).to(x.dtype) * self.weight


class StdAttention(nn.Module):
    """Self-attention, q and k normalised per head."""

    def __init__(self, width: int, heads: int, mean_square: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = StdNorm(width // heads, mean_square)
        self.k_norm = StdNorm(width // heads, mean_square)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))  # (B, heads, N, head_dim)
        return self.proj(attend(self.q_norm(q), (self.k_norm(k), v)))


class StdCrossAttention(nn.Module):
    """Attention to keys and values that are made once per condition."""

    def __init__(self, width: int, heads: int, mean_square: bool) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.q_norm = StdNorm(width // heads, mean_square)
        self.k_norm = StdNorm(width // heads, mean_square)
        self.proj = nn.Linear(width, width)

    def keys_values(self, condition: Tensor) -> KeysValues:
        """(B, L, D) -> normalised keys and values, each (B, heads, L, head_dim)."""
        k, v = (split_heads(part, self.heads) for part in self.kv(condition).chunk(2, dim=-1))
        return self.k_norm(k).contiguous(), v.contiguous()

    def forward(self, x: Tensor, keys_values: KeysValues, mask: Tensor | None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.proj(attend(self.q_norm(split_heads(self.q(x), self.heads)), keys_values, mask))
