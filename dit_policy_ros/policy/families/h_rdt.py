"""H-RDT, the policy of "H-RDT: Human Manipulation Enhanced Bimanual Robotic Manipulation".

Same function as https://github.com/HongzheBi/H_RDT. Flow matching over [state, actions] with adaptive layer norm from
the flow time, and one image and one language cross-attention in every block. Flow time is 0 for noise, 1 for actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dit_policy_ros.policy.flow_matching import FlowMatching
from dit_policy_ros.policy.layers import (
    GroupedAttention,
    KeysValues,
    Mlp,
    SwiGlu,
    TimestepEmbedder,
    adapter,
    adapter_widths,
    check_tokens,
    modulate,
)
from dit_policy_ros.policy.weights import Shapes, count_layers

PREFIXES = ("", "module.", "state_dict.", "model.")


@dataclass(frozen=True)
class HRdtConfig:
    """Sizes of the network, all from the parameter shapes, and what shapes do not tell."""

    hidden: int
    depth: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_hidden: int
    decoder_hidden: int
    horizon: int
    action_dim: int
    state_widths: tuple[int, ...]
    action_widths: tuple[int, ...]
    img_widths: tuple[int, ...]
    lang_widths: tuple[int, ...]
    max_img_tokens: int
    max_lang_tokens: int
    eps: float = 1e-5
    steps: int = 5
    additive_mask: bool = True
    """Whether a float language mask is added to the logits (fused attention) instead of being read as boolean."""


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are an H-RDT."""
    names = ("model.action_decoder.adaLN_modulation.1.weight", "model.blocks.0.lang_cross_attn.wkv.weight")
    return all(name in shapes for name in names)


def configure(settings: Mapping[str, Any], shapes: Shapes) -> HRdtConfig:
    """Returns the configuration from the official ``hrdt`` and ``noise_scheduler`` settings and the shapes."""
    settings = settings.get("config", settings)
    hrdt, scheduler = settings.get("hrdt", {}), settings.get("noise_scheduler", {})
    rows, hidden = shapes["model.x_pos_emb"][1:]
    head_dim = shapes["model.blocks.0.attn.norm_q.weight"][0]
    return HRdtConfig(
        hidden=hidden,
        depth=count_layers(shapes, "model.blocks."),
        heads=shapes["model.blocks.0.attn.wq.weight"][0] // head_dim,
        kv_heads=shapes["model.blocks.0.attn.wkv.weight"][0] // (2 * head_dim),
        head_dim=head_dim,
        ffn_hidden=shapes["model.blocks.0.ffn.w1.weight"][0],
        decoder_hidden=shapes["model.action_decoder.ffn.fc1.weight"][0],
        horizon=rows - 1,
        action_dim=shapes["model.action_decoder.ffn.fc2.weight"][0],
        state_widths=adapter_widths(shapes, "action_encoder.state_adaptor"),
        action_widths=adapter_widths(shapes, "action_encoder.action_adaptor"),
        img_widths=adapter_widths(shapes, "img_adapter"),
        lang_widths=adapter_widths(shapes, "lang_adapter"),
        max_img_tokens=shapes["model.img_pos_emb"][1],
        max_lang_tokens=shapes["model.lang_pos_emb"][1],
        eps=hrdt.get("norm_eps", 1e-5),
        steps=scheduler.get("num_inference_timesteps", 5),
        additive_mask=hrdt.get("use_flash_attn", True),
    )


def build(config: HRdtConfig) -> HRdt:
    """Returns the network with fresh parameters."""
    return HRdt(config)


@dataclass(frozen=True)
class HRdtCache:
    """Everything that depends on images and language alone. Keys and values are (B, kv_heads, tokens, head_dim)."""

    img: tuple[KeysValues, ...]
    """Of every block."""
    lang: tuple[KeysValues, ...] | None
    """Of every block; None without language."""
    lang_mask: Tensor | None
    """(B, L)."""


class Block(nn.Module):
    """Self-attention, image cross-attention, language cross-attention (plain), feed-forward."""

    def __init__(self, c: HRdtConfig) -> None:
        super().__init__()
        sizes = (c.hidden, c.head_dim, c.kv_heads, c.eps, c.heads * c.head_dim)
        self.attn_norm = nn.LayerNorm(c.hidden, c.eps)
        self.attn = GroupedAttention(*sizes)
        self.img_cross_norm = nn.LayerNorm(c.hidden, c.eps)
        self.img_cond_norm = nn.LayerNorm(c.hidden, c.eps)
        self.img_cross_attn = GroupedAttention(*sizes)
        self.lang_cross_norm = nn.LayerNorm(c.hidden, c.eps)
        self.lang_cond_norm = nn.LayerNorm(c.hidden, c.eps)
        self.lang_cross_attn = GroupedAttention(*sizes)
        self.ffn_norm = nn.LayerNorm(c.hidden, c.eps)
        self.ffn = SwiGlu(c.hidden, c.ffn_hidden)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(c.hidden, 9 * c.hidden))

    def forward(
        self, x: Tensor, time: Tensor, img: KeysValues, lang: KeysValues | None, lang_mask: Tensor | None
    ) -> Tensor:
        """Tokens (B, N, D) and time embedding (B, D) -> (B, N, D)."""
        shift, scale, gate, shift_img, scale_img, gate_img, shift_ffn, scale_ffn, gate_ffn = self.adaLN_modulation(
            time
        ).chunk(9, dim=-1)  # (B, D) each
        x = x + gate[:, None] * self.attn(modulate(self.attn_norm(x), shift, scale))
        x = x + gate_img[:, None] * self.img_cross_attn(modulate(self.img_cross_norm(x), shift_img, scale_img), img)
        if lang is not None:
            x = x + self.lang_cross_attn(self.lang_cross_norm(x), lang, lang_mask)
        return x + gate_ffn[:, None] * self.ffn(modulate(self.ffn_norm(x), shift_ffn, scale_ffn))


class ActionDecoder(nn.Module):
    """Adaptive layer norm and a two-layer MLP."""

    def __init__(self, c: HRdtConfig) -> None:
        super().__init__()
        self.ffn_norm = nn.LayerNorm(c.hidden, c.eps)
        self.ffn = Mlp(c.hidden, c.decoder_hidden, c.action_dim, nn.SiLU())
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(c.hidden, 2 * c.hidden))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, A)."""
        shift, scale = self.adaLN_modulation(time).chunk(2, dim=-1)
        return self.ffn(modulate(self.ffn_norm(x), shift, scale))


class Transformer(nn.Module):
    """The parameters under ``model.`` in a checkpoint."""

    def __init__(self, c: HRdtConfig) -> None:
        super().__init__()
        self.t_embedder = TimestepEmbedder(c.hidden)
        self.x_pos_emb = nn.Parameter(torch.zeros(1, 1 + c.horizon, c.hidden))
        self.lang_pos_emb = nn.Parameter(torch.zeros(1, c.max_lang_tokens, c.hidden))
        self.img_pos_emb = nn.Parameter(torch.zeros(1, c.max_img_tokens, c.hidden))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.action_decoder = ActionDecoder(c)

    def forward(self, x: Tensor, time: Tensor, cache: HRdtCache) -> Tensor:
        """Tokens (B, 1 + H, D) and time embedding (B, D) -> (B, 1 + H, A)."""
        langs = cache.lang or (None,) * len(self.blocks)
        for block, img, lang in zip(self.blocks, cache.img, langs, strict=True):
            x = block(x, time, img, lang, cache.lang_mask)
        return self.action_decoder(x, time)


class HRdt(FlowMatching):
    """H-RDT with its adapters. Language and image tokens are raw features of the encoders."""

    def __init__(self, config: HRdtConfig) -> None:
        super().__init__()
        self.config = config
        self.img_adapter = adapter(config.img_widths, nn.SiLU)
        self.lang_adapter = adapter(config.lang_widths, nn.SiLU)
        self.action_encoder = nn.ModuleDict(
            {
                "state_adaptor": adapter(config.state_widths, nn.SiLU),
                "action_adaptor": adapter(config.action_widths, nn.SiLU),
            }
        )
        self.model = Transformer(config)

    def conditions(self, img_tokens: Tensor, lang_tokens: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Returns adapted image (B, M, D) and language (B, L, D) tokens with their position embeddings.

        Raises:
            PolicyError: a feature has another width, or there are too many tokens.
        """
        c = self.config
        check_tokens(img_tokens, c.img_widths[0], c.max_img_tokens, "image")
        img = self.img_adapter(img_tokens) + self.model.img_pos_emb[:, : img_tokens.shape[1]]
        if lang_tokens is None:
            return img, None
        check_tokens(lang_tokens, c.lang_widths[0], c.max_lang_tokens, "language")
        return img, self.lang_adapter(lang_tokens) + self.model.lang_pos_emb[:, : lang_tokens.shape[1]]

    def encode(
        self, img_tokens: Tensor, lang_tokens: Tensor | None = None, lang_mask: Tensor | None = None
    ) -> HRdtCache:
        """Adapts the conditions and projects the cross-attention keys and values of every block.

        Args:
            img_tokens: (B, M, img width), views one after the other, M at most ``max_img_tokens``.
            lang_tokens: (B, L, lang width), or None, which skips language in every block.
            lang_mask: (B, L) bool, True for words. The official training passes floats, which are added to the
                logits and so leave the padding visible.

        Raises:
            PolicyError: a feature has another width, or there are too many tokens.
        """
        img, lang = self.conditions(img_tokens, lang_tokens)
        if lang_mask is not None and not self.config.additive_mask:
            lang_mask = lang_mask.bool()
        blocks = self.model.blocks
        img_keys_values = tuple(b.img_cross_attn.keys_values(b.img_cond_norm(img)) for b in blocks)
        if lang is None:
            return HRdtCache(img_keys_values, None, None)
        lang_keys_values = tuple(b.lang_cross_attn.keys_values(b.lang_cond_norm(lang)) for b in blocks)
        return HRdtCache(img_keys_values, lang_keys_values, lang_mask)

    def forward(self, cache: HRdtCache, x: Tensor, t: Tensor, state: Tensor) -> Tensor:
        """Returns the velocity (B, H, A) at noisy actions x (B, H, A), flow time t (B,) or (1,), state (B, 1, S)."""
        time = self.model.t_embedder(t).expand(len(x), -1)  # (B, D)
        rows = [self.action_encoder["state_adaptor"](state), self.action_encoder["action_adaptor"](x)]
        tokens = torch.cat(rows, dim=1) + self.model.x_pos_emb  # (B, 1+H, D)
        return self.model(tokens, time, cache)[:, 1:]
