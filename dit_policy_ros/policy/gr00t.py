"""The action head that GR00T N1.5 and N1.6 share: encoders per embodiment around a diffusion transformer.

Same function as https://github.com/NVIDIA/Isaac-GR00T. Even blocks cross-attend to vision-language features, odd blocks
are self-attention. Flow time is 0 for noise, 1 for actions; the network sees ``trunc(1000 t)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.diffusers_layers import Attention, FeedForward
from dit_policy_ros.policy.layers import KeysValues, sinusoid
from dit_policy_ros.policy.weights import Shapes, count_layers

EPS = 1e-5
FINAL_EPS = 1e-6


@dataclass(frozen=True)
class Gr00tConfig:
    """Sizes from the parameter shapes; heads, horizon and buckets from ``config.json``."""

    width: int
    """Of the tokens."""
    depth: int
    heads: int
    ff_hidden: int
    time_width: int
    """Number of sinusoids of the diffusion transformer's time."""
    hidden: int
    """Width of the encoders and decoders per embodiment."""
    out_width: int
    """What the transformer hands to the decoder."""
    backbone_width: int
    state_dim: int
    action_dim: int
    embodiments: int
    max_actions: int | None
    """Rows of the position table; None where the head has none."""
    vl_norm: bool
    horizon: int = 16
    steps: int = 4
    buckets: int = 1000
    interleave: bool = True
    """False where every block is cross-attention."""


def read_config(settings: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Returns the fields of ``Gr00tConfig``.

    Args:
        settings: the part of ``config.json`` about the action head; may be empty for the released width.

    Raises:
        CheckpointError: the number of heads, which shapes do not tell, is unknown; or an option is.
    """
    dit = settings.get("diffusion_model_cfg", {})
    refuse_positions(dit, "diffusion_model_cfg")
    width = shapes["model.transformer_blocks.0.attn1.to_q.weight"][0]
    embodiments, state_dim, hidden = shapes["state_encoder.layer1.W"]
    return {
        "width": width,
        "depth": count_layers(shapes, "model.transformer_blocks."),
        "heads": head_count(dit, width, 48, "diffusion_model_cfg"),
        "ff_hidden": shapes["model.transformer_blocks.0.ff.net.0.proj.weight"][0],
        "time_width": shapes["model.timestep_encoder.timestep_embedder.linear_1.weight"][1],
        "hidden": hidden,
        "out_width": shapes["model.proj_out_2.weight"][0],
        "backbone_width": shapes["model.transformer_blocks.0.attn1.to_k.weight"][1],
        "state_dim": state_dim,
        "action_dim": shapes["action_decoder.layer2.b"][1],
        "embodiments": embodiments,
        "max_actions": shapes.get("position_embedding.weight", (None,))[0],
        "vl_norm": "vlln.weight" in shapes,
        "horizon": settings.get("action_horizon", 16),
        "steps": settings.get("num_inference_timesteps", 4),
        "buckets": settings.get("num_timestep_buckets", 1000),
        "interleave": _interleaved(dit, shapes),
    }


def _interleaved(dit: Mapping[str, Any], shapes: Shapes) -> bool:
    """Whether odd blocks are self-attention: their keys tell it, where the two widths differ."""
    width = shapes["model.transformer_blocks.0.attn1.to_q.weight"][0]
    odd = shapes.get("model.transformer_blocks.1.attn1.to_k.weight")
    if odd is not None and shapes["model.transformer_blocks.0.attn1.to_k.weight"][1] != width:
        return odd[1] == width
    return dit.get("interleave_self_attention", True)


def refuse_positions(settings: Mapping[str, Any], where: str) -> None:
    """Refuses positions inside the blocks, which no release has and the weights do not show.

    Raises:
        CheckpointError: the settings ask for them.
    """
    kind = settings.get("positional_embeddings")
    if kind is not None:
        raise CheckpointError(f"GR00T with positional_embeddings = '{kind}' in '{where}' is not known; only null is.")


def head_count(settings: Mapping[str, Any], width: int, released_head_dim: int, where: str) -> int:
    """Returns the number of attention heads; without settings, that of the released head width.

    Raises:
        CheckpointError: it does not divide the width, or is unknown.
    """
    heads = settings.get("num_attention_heads")
    if heads is None and width % settings.get("attention_head_dim", released_head_dim) == 0:
        heads = width // settings.get("attention_head_dim", released_head_dim)
    if not heads or width % heads:
        raise CheckpointError(
            f"GR00T of width {width} with {heads or 'an unknown number of'} heads; the weights do not tell how many, "
            f"so config.json must: '{where}' with 'num_attention_heads', a divisor of {width}."
        )
    return heads


@dataclass(frozen=True)
class Gr00tCache:
    """What the vision-language features give. Both have an entry for every block, None for self-attention."""

    keys_values: tuple[KeysValues | None, ...]
    """Each (B, heads, L, head_dim)."""
    masks: tuple[Tensor | None, ...]
    """Each (B, L) bool, True may be attended."""


class CategoryLinear(nn.Module):
    """A linear layer per embodiment: ``x @ W[id] + b[id]``."""

    def __init__(self, embodiments: int, width: int, out: int) -> None:
        super().__init__()
        self.W = nn.Parameter(0.02 * torch.randn(embodiments, width, out))
        self.b = nn.Parameter(torch.zeros(embodiments, out))

    def forward(self, x: Tensor, embodiment: Tensor) -> Tensor:
        """(B, N, width) and (B,) integers -> (B, N, out)."""
        return torch.baddbmm(self.b[embodiment][:, None], x, self.W[embodiment])


class CategoryMlp(nn.Module):
    """Two layers per embodiment with ReLU between."""

    def __init__(self, embodiments: int, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.layer1 = CategoryLinear(embodiments, width, hidden)
        self.layer2 = CategoryLinear(embodiments, hidden, out)

    def forward(self, x: Tensor, embodiment: Tensor) -> Tensor:
        """(B, N, width) and (B,) integers -> (B, N, out)."""
        return self.layer2(F.relu(self.layer1(x, embodiment)), embodiment)


class ActionEncoder(nn.Module):
    """Three layers per embodiment; the time code joins after the first."""

    def __init__(self, c: Gr00tConfig) -> None:
        super().__init__()
        self.W1 = CategoryLinear(c.embodiments, c.action_dim, c.width)
        self.W2 = CategoryLinear(c.embodiments, 2 * c.width, c.width)
        self.W3 = CategoryLinear(c.embodiments, c.width, c.width)

    def code(self, t: Tensor) -> Tensor:
        """Returns the time code (B, D) of integer times (B,): sines first."""
        return sinusoid(t, self.W1.W.shape[-1], sines_first=True).to(self.W1.W.dtype)

    def forward(self, x: Tensor, t: Tensor, embodiment: Tensor) -> Tensor:
        """Noisy actions (B, T, A), integer times (B,) -> (B, T, D)."""
        x = self.W1(x, embodiment)  # (B, T, D)
        x = torch.cat([x, self.code(t)[:, None].expand_as(x)], dim=-1)  # (B, T, 2D)
        return self.W3(F.silu(self.W2(x, embodiment)), embodiment)


class TimestepEncoder(nn.Module):
    """Sinusoids with a divisor of 127 instead of 128, linear, SiLU, linear."""

    def __init__(self, c: Gr00tConfig) -> None:
        super().__init__()
        first, second = nn.Linear(c.time_width, c.width), nn.Linear(c.width, c.width)
        self.timestep_embedder = nn.ModuleDict({"linear_1": first, "linear_2": second})

    def frequencies(self, t: Tensor) -> Tensor:
        """Returns (B, time_width) sinusoids, cosines first."""
        width = self.timestep_embedder["linear_1"].in_features
        return sinusoid(t, width, divisor=width // 2 - 1)

    def forward(self, t: Tensor) -> Tensor:
        """Integer times (B,) -> (B, D)."""
        first, second = self.timestep_embedder["linear_1"], self.timestep_embedder["linear_2"]
        return second(F.silu(first(self.frequencies(t).to(first.weight.dtype))))


class AdaptiveNorm(nn.Module):
    """Layer norm whose scale (first half) and shift come from the time embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, N, D) and (B, D) -> (B, N, D)."""
        scale, shift = self.linear(F.silu(time))[:, None].chunk(2, dim=-1)
        return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


class Block(nn.Module):
    """One attention, either kind, and a feed-forward; no gates."""

    def __init__(self, c: Gr00tConfig, context_width: int) -> None:
        super().__init__()
        self.norm1 = AdaptiveNorm(c.width)
        self.attn1 = Attention(c.width, c.heads, context_width)
        self.norm3 = nn.LayerNorm(c.width, EPS, elementwise_affine=False)
        self.ff = FeedForward(c.width, c.ff_hidden)

    def forward(self, x: Tensor, time: Tensor, keys_values: KeysValues | None, mask: Tensor | None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.attn1(self.norm1(x, time), keys_values, mask)
        return x + self.ff(self.norm3(x))


class DiffusionTransformer(nn.Module):
    """The parameters under ``model.`` of the head."""

    def __init__(self, c: Gr00tConfig) -> None:
        super().__init__()
        self.crosses = tuple(not c.interleave or i % 2 == 0 for i in range(c.depth))
        self.timestep_encoder = TimestepEncoder(c)
        widths = (c.backbone_width if cross else c.width for cross in self.crosses)
        self.transformer_blocks = nn.ModuleList(Block(c, width) for width in widths)
        self.proj_out_1 = nn.Linear(c.width, 2 * c.width)
        self.proj_out_2 = nn.Linear(c.width, c.out_width)

    def encode(self, features: Tensor, mask_of: Callable[[int], Tensor | None]) -> Gr00tCache:
        """Projects keys and values of vision-language features (B, L, backbone_width) for every cross-attention.

        Args:
            mask_of: the (B, L) mask of a block number.
        """
        blocks = list(zip(self.crosses, self.transformer_blocks, strict=True))
        keys_values = tuple(block.attn1.keys_values(features) if cross else None for cross, block in blocks)
        return Gr00tCache(keys_values, tuple(mask_of(i) if cross else None for i, cross in enumerate(self.crosses)))

    def forward(self, x: Tensor, t: Tensor, cache: Gr00tCache) -> Tensor:
        """Tokens (B, N, D) and integer times (B,) -> (B, N, out_width)."""
        time = self.timestep_encoder(t)  # (B, D)
        for block, keys_values, mask in zip(self.transformer_blocks, cache.keys_values, cache.masks, strict=True):
            x = block(x, time, keys_values, mask)
        # Here the shift comes first, unlike in the blocks.
        shift, scale = self.proj_out_1(F.silu(time))[:, None].chunk(2, dim=-1)
        return self.proj_out_2(F.layer_norm(x, x.shape[-1:], eps=FINAL_EPS) * (1 + scale) + shift)
