"""RDT2-FM, the flow-matching action expert of RDT2.

Same function as https://github.com/thu-ml/RDT2. Action and register tokens cross-attend to the cached keys and values
of a frozen vision-language model, layer by layer; flow time and state modulate every norm. Flow time is 0 for noise,
1 for actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.flow_matching import FlowMatching
from dit_policy_ros.policy.layers import (
    GroupedAttention,
    KeysValues,
    Mlp,
    RmsNorm,
    SwiGlu,
    TimestepEmbedder,
    adapter,
    adapter_widths,
    modulate,
)
from dit_policy_ros.policy.weights import Shapes, count_layers

PREFIXES = ("", "module.")


@dataclass(frozen=True)
class Rdt2FmConfig:
    """Sizes of the network, all from the parameter shapes, and what shapes do not tell."""

    hidden: int
    depth: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_hidden: int
    final_hidden: int
    horizon: int
    registers: int
    action_dim: int
    action_widths: tuple[int, ...]
    state_widths: tuple[int, ...]
    lang_widths: tuple[int, ...] | None
    """Widths of the language adapter; the release has none, because it attends to a cache."""
    eps: float = 1e-5
    steps: int = 5


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are an RDT2-FM."""
    names = ("model.register_tokens", "model.state_pos_emb", "model.blocks.0.cross_attn.wkv.weight")
    return all(name in shapes for name in names)


def configure(settings: Mapping[str, Any], shapes: Shapes) -> Rdt2FmConfig:
    """Returns the configuration from the official ``rdt`` and ``noise_scheduler`` settings and the shapes."""
    settings = settings.get("config", settings)
    rows, hidden = shapes["model.x_pos_emb"][1:]
    registers = shapes["model.register_tokens"][1]
    head_dim = shapes["model.blocks.0.attn.norm_q.weight"][0]
    has_lang = any(name.startswith("lang_adaptor.") for name in shapes)
    return Rdt2FmConfig(
        hidden=hidden,
        depth=count_layers(shapes, "model.blocks."),
        heads=shapes["model.blocks.0.attn.wq.weight"][0] // head_dim,
        kv_heads=shapes["model.blocks.0.attn.wkv.weight"][0] // (2 * head_dim),
        head_dim=head_dim,
        ffn_hidden=shapes["model.blocks.0.ffn.w1.weight"][0],
        final_hidden=shapes["model.final_layer.ffn.fc1.weight"][0],
        horizon=rows - registers,
        registers=registers,
        action_dim=shapes["model.final_layer.ffn.fc2.weight"][0],
        action_widths=adapter_widths(shapes, "act_adaptor"),
        state_widths=adapter_widths(shapes, "state_adaptor"),
        lang_widths=adapter_widths(shapes, "lang_adaptor") if has_lang else None,
        eps=settings.get("rdt", {}).get("norm_eps", 1e-5),
        steps=settings.get("noise_scheduler", {}).get("num_inference_timesteps", 5),
    )


def build(config: Rdt2FmConfig) -> Rdt2Fm:
    """Returns the network with fresh parameters."""
    return Rdt2Fm(config)


@dataclass(frozen=True)
class Rdt2FmCache:
    """What every block attends to."""

    keys_values: tuple[KeysValues, ...]
    """Of every block, each (B, kv_heads, tokens, head_dim)."""
    mask: Tensor | None
    """(B, tokens) bool, True may be attended."""


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; each modulated and gated."""

    def __init__(self, c: Rdt2FmConfig) -> None:
        super().__init__()
        sizes = (c.hidden, c.head_dim, c.kv_heads, c.eps, c.heads * c.head_dim)
        self.attn_norm = RmsNorm(c.hidden, c.eps)
        self.attn = GroupedAttention(*sizes)
        self.cross_norm = RmsNorm(c.hidden, c.eps)
        self.cond_norm = RmsNorm(c.hidden, c.eps)
        self.cross_attn = GroupedAttention(*sizes)
        self.ffn_norm = RmsNorm(c.hidden, c.eps)
        self.ffn = SwiGlu(c.hidden, c.ffn_hidden)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(2 * c.hidden, 9 * c.hidden))

    def forward(self, x: Tensor, modulation: Tensor, keys_values: KeysValues, mask: Tensor | None) -> Tensor:
        """Tokens (B, N, D) and modulation input (B, 2D) -> (B, N, D)."""
        shift, scale, gate, shift_cross, scale_cross, gate_cross, shift_ffn, scale_ffn, gate_ffn = (
            self.adaLN_modulation(modulation).chunk(9, dim=-1)  # (B, D) each
        )
        x = x + gate[:, None] * self.attn(modulate(self.attn_norm(x), shift, scale))
        query = modulate(self.cross_norm(x), shift_cross, scale_cross)
        x = x + gate_cross[:, None] * self.cross_attn(query, keys_values, mask)
        return x + gate_ffn[:, None] * self.ffn(modulate(self.ffn_norm(x), shift_ffn, scale_ffn))


class FinalLayer(nn.Module):
    """Adaptive norm and a two-layer MLP to the action width."""

    def __init__(self, c: Rdt2FmConfig) -> None:
        super().__init__()
        self.ffn_norm = RmsNorm(c.hidden, c.eps)
        self.ffn = Mlp(c.hidden, c.final_hidden, c.action_dim, nn.SiLU())
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(2 * c.hidden, 2 * c.hidden))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, A)."""
        shift, scale = self.adaLN_modulation(modulation).chunk(2, dim=-1)
        return self.ffn(modulate(self.ffn_norm(x), shift, scale))


class Transformer(nn.Module):
    """The parameters under ``model.`` in a checkpoint."""

    def __init__(self, c: Rdt2FmConfig) -> None:
        super().__init__()
        self.t_embedder = TimestepEmbedder(c.hidden)
        self.register_tokens = nn.Parameter(torch.zeros(1, c.registers, c.hidden))
        self.x_pos_emb = nn.Parameter(torch.zeros(1, c.horizon + c.registers, c.hidden))
        self.state_pos_emb = nn.Parameter(torch.zeros(1, 1, c.hidden))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.final_layer = FinalLayer(c)

    def forward(self, x: Tensor, modulation: Tensor, cache: Rdt2FmCache) -> Tensor:
        """Tokens (B, H + R, D) and modulation input (B, 2D) -> (B, H + R, A)."""
        for block, keys_values in zip(self.blocks, cache.keys_values, strict=True):
            x = block(x, modulation, keys_values, cache.mask)
        return self.final_layer(x, modulation)


class Rdt2Fm(FlowMatching):
    """RDT2-FM with its adapters."""

    def __init__(self, config: Rdt2FmConfig) -> None:
        super().__init__()
        self.config = config
        self.act_adaptor = adapter(config.action_widths, nn.SiLU)
        self.state_adaptor = adapter(config.state_widths, nn.SiLU)
        if config.lang_widths is not None:
            self.lang_adaptor = adapter(config.lang_widths, nn.SiLU)
        self.model = Transformer(config)

    def encode(self, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Rdt2FmCache:
        """Takes the cache of the vision-language model as it is: no projection and no norm.

        Block i attends to layer ``i % layers``. Keys carry the rotary embedding of the language model.

        Args:
            keys: (layers, B, kv_heads, L, head_dim).
            values: same shape.
            mask: (B, L) bool, True may be attended; padding is on the left.

        Raises:
            PolicyError: heads or head width are not those of the network.
        """
        c = self.config
        heads, width = keys.shape[2], keys.shape[4]
        if (heads, width) != (c.kv_heads, c.head_dim):
            raise PolicyError(
                f"The cache has {heads} heads of {width}; this network attends to {c.kv_heads} of {c.head_dim}. "
                "Use the vision-language model it was trained with."
            )
        layers = [(keys[i % len(keys)], values[i % len(keys)]) for i in range(c.depth)]
        return Rdt2FmCache(tuple(layers), mask)

    def encode_tokens(self, tokens: Tensor, mask: Tensor | None = None) -> Rdt2FmCache:
        """Projects keys and values from tokens instead of a cache.

        Args:
            tokens: (B, L, width) for all blocks, or (B, depth, L, width) for each its own.
            mask: (B, L) bool, True may be attended.
        """
        if self.config.lang_widths is not None:
            tokens = self.lang_adaptor(tokens)
        keys_values = []
        for i, block in enumerate(self.model.blocks):
            condition = tokens[:, i] if tokens.ndim == 4 else tokens  # (B, L, D)
            keys_values.append(block.cross_attn.keys_values(block.cond_norm(condition)))
        return Rdt2FmCache(tuple(keys_values), mask)

    def forward(self, cache: Rdt2FmCache, x: Tensor, t: Tensor, state: Tensor) -> Tensor:
        """Returns the velocity (B, H, A).

        Args:
            x: (B, H, A) noisy actions.
            t: (B,) or (1,) flow time.
            state: (B, 1, S); the official training and deployment pass zeros.
        """
        state = self.state_adaptor(state) + self.model.state_pos_emb  # (B, 1, D)
        time = self.model.t_embedder(t).expand(len(x), -1)  # (B, D)
        registers = self.model.register_tokens.expand(len(x), -1, -1)
        tokens = torch.cat([self.act_adaptor(x), registers], dim=1) + self.model.x_pos_emb  # (B, H+R, D)
        return self.model(tokens, torch.cat([time, state[:, 0]], dim=-1), cache)[:, : x.shape[1]]
