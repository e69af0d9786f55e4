"""Blocks of MDT and MDT-V: causal self-attention and cross-attention; the noise level enters in one of three ways."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.policy.adaptive import modulation
from dit_policy_ros.policy.attention import causal_mask, rotate
from dit_policy_ros.policy.layers import KeysValues, attend, split_heads

ROTARY_FEATURES = 32
ROTARY_BASE = 10_000.0


class BlockSizes(Protocol):
    """What of a configuration a block is made of; see ``encoder_decoder.MdtConfig``."""

    width: int
    mlp_hidden: int
    heads: int
    bias: bool
    rotary: bool
    noise: str


class Attention(nn.Module):
    """Attention with separate projections; rotary on the first features of each head where the checkpoint has it."""

    def __init__(self, c: BlockSizes) -> None:
        super().__init__()
        self.heads, self.rotary = c.heads, c.rotary
        self.query, self.key, self.value = (nn.Linear(c.width, c.width) for _ in range(3))
        self.c_proj = nn.Linear(c.width, c.width, bias=c.bias)

    def _turned(self, x: Tensor) -> Tensor:
        if not self.rotary:
            return x
        if hasattr(self, "rotary_pos_emb"):
            return rotate(x, self.rotary_pos_emb["freqs"], interleaved=True)
        i = torch.arange(0, ROTARY_FEATURES, 2, device=x.device, dtype=torch.float32)
        return rotate(x, ROTARY_BASE ** (-i / ROTARY_FEATURES), interleaved=True)

    def keys_values(self, context: Tensor) -> KeysValues:
        """(B, L, D) -> each (B, heads, L, head_dim)."""
        keys, values = (split_heads(layer(context), self.heads) for layer in (self.key, self.value))
        return self._turned(keys), values

    def forward(self, x: Tensor, keys_values: KeysValues | None = None, causal: bool = True) -> Tensor:
        """Attends from x (B, N, D) to ready keys and values, or to x itself without them."""
        query = self._turned(split_heads(self.query(x), self.heads))
        keys, values = keys_values or self.keys_values(x)
        mask = causal_mask(query.shape[2], keys.shape[2], x.device) if causal else None
        return self.c_proj(attend(query, (keys, values), mask))


class FeedForward(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, c: BlockSizes) -> None:
        super().__init__()
        self.c_fc = nn.Linear(c.width, c.mlp_hidden, bias=c.bias)
        self.c_proj = nn.Linear(c.mlp_hidden, c.width, bias=c.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    """Self-attention, cross-attention in a decoder, feed-forward; each after a norm and added."""

    def __init__(self, c: BlockSizes, cross: bool) -> None:
        super().__init__()
        self.noise = c.noise
        self.ln_1 = nn.LayerNorm(c.width, bias=c.bias)
        self.attn = Attention(c)
        self.ln_2 = nn.LayerNorm(c.width, bias=c.bias)
        self.mlp = FeedForward(c)
        if cross:
            self.cross_att = Attention(c)
            self.ln3 = nn.LayerNorm(c.width)
        if cross and c.noise == "adaptive":
            self.adaLN_zero = nn.ModuleDict({"modulation": modulation(c.width, c.width, 6)})

    def encode(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D) in the encoder, which is not causal."""
        x = x + self.attn(self.ln_1(x), causal=False)
        return x + self.mlp(self.ln_2(x))

    def forward(self, x: Tensor, context: KeysValues, noise: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D) in the decoder; the noise embedding is (B, 1, D)."""
        if self.noise == "adaptive":
            vectors = self.adaLN_zero["modulation"](noise)
            shift1, scale1, gate1, shift2, scale2, gate2 = vectors.chunk(6, dim=-1)  # (B, 1, D) each
            # The official modulation has no ``1 +`` before the scale.
            x = x + gate1 * self.attn(shift1 + scale1 * self.ln_1(x))
            x = x + self.cross_att(self.ln3(x), context)
            return x + gate2 * self.mlp(shift2 + scale2 * self.ln_2(x))
        added = noise if self.noise == "added" else 0.0
        x = x + self.attn(self.ln_1(x) + added)
        x = x + self.cross_att(self.ln3(x) + added, context)
        return x + self.mlp(self.ln_2(x))


class Stack(nn.Module):
    """Blocks and a last norm."""

    def __init__(self, c: BlockSizes, depth: int, cross: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(c, cross) for _ in range(depth))
        self.ln = nn.LayerNorm(c.width, bias=c.bias)
