"""The block of MoDE: causal attention on a conditioned norm, then a mixture of experts."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from dit_policy_ros.policy.experts import ExpertBank, FusedExperts, Router
from dit_policy_ros.policy.layers import KeysValues, attend, split_heads
from dit_policy_ros.policy.shaped import GainNorm

EPS = 1e-6


class RoutedSizes(Protocol):
    """What of a configuration a block is made of; see ``families.mode.MoDeConfig``."""

    width: int
    head_width: int
    experts: int
    expert_hidden: int
    router_hidden: int


class Attention(nn.Module):
    """Causal self-attention, q and k normalised per head."""

    def __init__(self, c: RoutedSizes) -> None:
        super().__init__()
        self.heads = c.width // c.head_width
        self.query = nn.Linear(c.width, c.width)
        self.key = nn.Linear(c.width, c.width)
        self.value = nn.Linear(c.width, c.width)
        self.c_proj = nn.Linear(c.width, c.width, bias=False)
        self.q_norm = GainNorm(c.head_width, EPS)
        self.k_norm = GainNorm(c.head_width, EPS)

    def forward(self, x: Tensor, before: KeysValues | None) -> tuple[Tensor, KeysValues]:
        """Returns (B, N, D) and the keys and values of all tokens, those before x included."""
        q, k, v = (split_heads(layer(x), self.heads) for layer in (self.query, self.key, self.value))
        q, k = self.q_norm(q), self.k_norm(k)  # (B, heads, N, head_dim)
        if before is not None:
            k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
        rows, columns = q.shape[2], k.shape[2]
        mask = torch.ones(rows, columns, dtype=torch.bool, device=x.device).tril(columns - rows)[None, None]
        return self.c_proj(attend(q, (k, v), mask)), (k, v)


class Block(nn.Module):
    """Attention on a conditioned norm, then experts; the residual of the experts is their normalised input."""

    def __init__(self, c: RoutedSizes) -> None:
        super().__init__()
        self.ln_1 = GainNorm(c.width, EPS)
        self.attn = Attention(c)
        self.ln_2 = GainNorm(c.width, EPS)
        self.experts = ExpertBank(c.experts, c.width, c.expert_hidden)
        self.router = Router(c.width, c.router_hidden, c.experts)

    def forward(
        self, x: Tensor, condition: Tensor, shares: FusedExperts | Tensor, before: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        """Returns (B, N, D) and the keys and values of all tokens, those before x included."""
        update, keys_values = self.attn(self.ln_1(x) + condition, before)
        y = self.ln_2(x + update)
        return y + self.experts(y, shares), keys_values


def of_tokens(share: FusedExperts | Tensor, start: int, stop: int | None) -> FusedExperts | Tensor:
    """Cuts out the tokens of mixing weights that differ from token to token."""
    return share[:, start:stop] if isinstance(share, Tensor) and share.shape[1] > 1 else share
