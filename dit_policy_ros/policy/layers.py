"""Layers that several diffusion transformers share. Attribute names are those of the official checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.errors import PolicyError

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one attention layer, each (B, heads, tokens, head_dim)."""


def gelu_tanh() -> nn.GELU:
    """Returns the tanh approximation of GELU that most official implementations use."""
    return nn.GELU(approximate="tanh")


def sinusoid(
    t: Tensor, width: int = 256, max_period: float = 10_000.0, divisor: int | None = None, sines_first: bool = False
) -> Tensor:
    """Returns the Fourier features of scalars, cosines first unless told otherwise, computed in float32.

    Args:
        t: (B,) diffusion step, flow time or any scalar, as it is.
        divisor: the frequencies are ``max_period ** (-k / divisor)``; half the width unless given.

    Returns:
        (B, width).
    """
    half = width // 2
    k = torch.arange(half, dtype=torch.float32, device=t.device)
    frequencies = torch.exp(-math.log(max_period) * k / (divisor or half))
    angles = t.float()[:, None] * frequencies
    halves = (angles.sin(), angles.cos()) if sines_first else (angles.cos(), angles.sin())
    return torch.cat(halves, dim=-1)


class TimestepEmbedder(nn.Module):
    """Fourier features of a scalar, linear, SiLU, linear."""

    def __init__(self, hidden: int, width: int = 256) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, t: Tensor) -> Tensor:
        """Embeds (B,) scalars as (B, hidden)."""
        layer = self.mlp[0]
        return self.mlp(sinusoid(t, layer.in_features).to(layer.weight.dtype))


def adapter(widths: tuple[int, ...], activation: Callable[[], nn.Module]) -> nn.Module:
    """Returns linear layers of these widths with an activation between them.

    A single layer is a bare linear, so that its parameters have no index, as in the official checkpoints.
    """
    if len(widths) == 2:
        return nn.Linear(*widths)
    layers: list[nn.Module] = [nn.Linear(*widths[:2])]
    for width_in, width_out in pairwise(widths[1:]):
        layers += [activation(), nn.Linear(width_in, width_out)]
    return nn.Sequential(*layers)


def adapter_widths(shapes: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    """Returns the widths of an ``adapter`` from the shapes of its parameters in a checkpoint.

    Raises:
        KeyError: there are none.
    """
    names = [f"{name}.weight", *(f"{name}.{2 * i}.weight" for i in range(len(shapes)))]
    weights = [shapes[key] for key in names if key in shapes]
    if not weights:
        raise KeyError(f"{name}.0.weight")
    return (weights[0][1], *(shape[0] for shape in weights))


class Mlp(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, width: int, hidden: int, out: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = activation
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., width) to (..., out)."""
        return self.fc2(self.act(self.fc1(x)))


class SwiGlu(nn.Module):
    """Gated feed-forward ``w2(silu(w1 x) * w3 x)`` without biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., width) to (..., width)."""
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class RmsNorm(nn.Module):
    """Divides by the root mean square over the last axis, in float32; gain only."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (..., width)."""
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


def check_tokens(tokens: Tensor, width: int, most: int, what: str, exact: bool = False) -> None:
    """Refuses features (B, N, width) that the network was not made for.

    Raises:
        PolicyError: another width, too many tokens, or not exactly ``most`` where ``exact``.
    """
    got_width, got = tokens.shape[-1], tokens.shape[-2]
    if got_width != width:
        raise PolicyError(
            f"The {what} features are {got_width} wide, but this checkpoint takes {width}. Use the encoder it was "
            "trained with, or an embedding file made with it."
        )
    if got > most or (exact and got != most):
        raise PolicyError(f"Got {got} {what} tokens; this checkpoint takes {'exactly' if exact else 'at most'} {most}.")


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, heads * D) -> (B, heads, N, D)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(query: Tensor, keys_values: KeysValues, mask: Tensor | None = None) -> Tensor:
    """Attention with a scale of ``head_dim ** -0.5``.

    Args:
        query: (B, Hq, N, D). Head ``j`` of the keys serves the query heads ``j * r`` to ``j * r + r - 1``, r = Hq / Hk.
        keys_values: each (B, Hk, L, D).
        mask: boolean, True may be attended; or a float added to the logits. (B, L) over the keys; or, where every
            query head has its own keys, four axes that broadcast to (B, Hq, N, L).

    Returns:
        (B, N, Hq * D).
    """
    keys, values = keys_values
    batch, heads, tokens, width = query.shape
    groups = heads // keys.shape[1]
    if mask is not None:
        mask = mask if mask.dtype == torch.bool else mask.to(query.dtype)
        mask = mask[:, None, None] if mask.dim() == 2 else mask  # (B, 1, 1, L)
    # A key head's queries are put after each other, which spares copies of keys and values.
    query = query.reshape(batch, heads // groups, groups * tokens, width)  # (B, Hk, r*N, D)
    out = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    return out.reshape(batch, heads, tokens, width).transpose(1, 2).flatten(2)


class GroupedAttention(nn.Module):
    """Grouped-query attention of H-RDT and RDT2: no biases, q and k normalised per head.

    The output of ``wkv`` is laid out (kv head, head_dim, 2): even features are keys, odd ones values.
    """

    def __init__(self, width: int, head_dim: int, kv_heads: int, eps: float, query_width: int | None = None) -> None:
        super().__init__()
        inner = query_width or width
        self.head_dim = head_dim
        self.wq = nn.Linear(width, inner, bias=False)
        self.wkv = nn.Linear(width, 2 * kv_heads * head_dim, bias=False)
        self.wo = nn.Linear(inner, width, bias=False)
        self.norm_q = RmsNorm(head_dim, eps)
        self.norm_k = RmsNorm(head_dim, eps)

    def keys_values(self, condition: Tensor) -> KeysValues:
        """(B, L, width) -> normalised keys and values, each (B, kv_heads, L, head_dim)."""
        pairs = self.wkv(condition).unflatten(-1, (-1, self.head_dim, 2))  # (B, L, Hk, D, 2)
        keys, values = pairs.permute(4, 0, 2, 1, 3).unbind(0)  # (B, Hk, L, D)
        return self.norm_k(keys).contiguous(), values.contiguous()

    def forward(self, x: Tensor, keys_values: KeysValues | None = None, mask: Tensor | None = None) -> Tensor:
        """Attends from x (B, N, width) to ready keys and values, or to x itself without them."""
        query = self.norm_q(split_heads(self.wq(x), self.wq.out_features // self.head_dim))
        return self.wo(attend(query, keys_values or self.keys_values(x), mask))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Adaptive norm: x (B, N, D) times ``1 + scale`` plus shift, both (B, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]
