"""MDT-V, the variant of MDT with a frozen Voltron backbone: a Perceiver makes the observation tokens.

Same function as https://github.com/intuitive-robots/mdt_policy, ``mdtv``. The denoiser is that of MDT; its encoder has
no positions, and language goals have an embedding of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dit_policy_ros.policy.encoder_decoder import EncoderDecoder, MdtCache
from dit_policy_ros.policy.experts import Gate
from dit_policy_ros.policy.families.mdt import FROZEN, PREFIXES
from dit_policy_ros.policy.layers import attend, split_heads
from dit_policy_ros.policy.mdt_config import NET, MdtConfig, configure
from dit_policy_ros.policy.shaped import GainNorm, axes, checked_heads, count
from dit_policy_ros.policy.weights import Shapes

__all__ = ["PREFIXES", "MdtCache", "MdtConfig", "MdtV", "build", "configure", "detect", "rename"]

POOL = "clip_proj.latent_proj."
POOL_HEADS = 16
POOL_EPS = 1e-8


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are an MDT-V."""
    return f"{NET}incam_embed.weight" not in shapes and f"{NET}decoder.blocks.0.cross_att.query.weight" in shapes


def rename(name: str) -> str | None:
    """Leaves out frozen encoders and positions that are never used."""
    return None if name.startswith(FROZEN) or name == f"{NET}pos_emb" else name


def build(config: MdtConfig) -> MdtV:
    """Returns the network with fresh parameters."""
    return MdtV(config)


class LatentAttention(nn.Module):
    """Attention from latents to inputs followed by the latents themselves."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_media, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, inputs: Tensor, latents: Tensor) -> Tensor:
        """(B, N, D) and (B, L, D) -> (B, L, D)."""
        latents = self.norm_latents(latents)
        everything = torch.cat([self.norm_media(inputs), latents], dim=1)
        q = split_heads(self.to_q(latents), self.heads)
        k, v = (split_heads(layer(everything), self.heads) for layer in (self.to_k, self.to_v))
        return self.to_out(attend(q, (k, v)))


class Perceiver(nn.Module):
    """Resamples any number of backbone tokens to a few."""

    def __init__(self, shapes: Shapes, prefix: str, heads: int) -> None:
        super().__init__()
        latents, width = axes(shapes, f"{prefix}latents", 2)
        inner = axes(shapes, f"{prefix}layers.0.0.to_q.weight", 2)[0]
        hidden = axes(shapes, f"{prefix}layers.0.1.1.weight", 2)[0]
        self.latents = nn.Parameter(torch.zeros(latents, width))
        self.time_pos_emb = nn.Parameter(torch.zeros(axes(shapes, f"{prefix}time_pos_emb", 3)[0], 1, width))
        layers = []
        for _ in range(count(shapes, f"{prefix}layers.")):
            up, down = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)
            feed_forward = nn.Sequential(nn.LayerNorm(width), up, nn.GELU(), down)
            layers.append(nn.ModuleList([LatentAttention(width, inner, checked_heads(heads, inner)), feed_forward]))
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, latents, D)."""
        tokens = tokens + self.time_pos_emb[0]
        latents = self.latents.expand(len(tokens), -1, -1)
        for attention, feed_forward in self.layers:
            latents = latents + attention(tokens, latents)
            latents = latents + feed_forward(latents)
        return self.norm(latents)


class PoolAttention(nn.Module):
    """Attention of the seed: no biases but the last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, seed: Tensor, x: Tensor) -> Tensor:
        """(B, 1, D) and (B, L, D) -> (B, 1, D)."""
        k, v = (split_heads(part, POOL_HEADS) for part in self.kv(x).chunk(2, dim=-1))
        return self.proj(attend(split_heads(self.q(seed), POOL_HEADS), (k, v)))


class Pool(nn.Module):
    """Attention pooling of a context by one learned seed."""

    def __init__(self, shapes: Shapes, context: int) -> None:
        super().__init__()
        seeds, width = axes(shapes, f"{POOL}latents", 2)
        hidden = axes(shapes, f"{POOL}mlp.0.project.weight", 2)[0] // 2
        self.latents = nn.Parameter(torch.zeros(seeds, width))
        self.projection = nn.Linear(context, width)
        self.attn = PoolAttention(width)
        self.attn_norm = GainNorm(width, POOL_EPS)
        self.mlp = nn.Sequential(Gate(width, hidden), nn.Linear(hidden, width))
        self.mlp_norm = GainNorm(width, POOL_EPS)

    def forward(self, context: Tensor) -> Tensor:
        """(B, L, D) -> (B, D)."""
        seed = self.latents.expand(len(context), -1, -1)  # (B, 1, D)
        z = self.attn_norm(seed + self.attn(seed, self.projection(context)))
        return self.mlp_norm(z + self.mlp(z))[:, 0]


class MdtV(EncoderDecoder):
    """MDT-V. Observation tokens come from the Perceiver over backbone tokens of both cameras."""

    def __init__(self, config: MdtConfig) -> None:
        super().__init__(config)
        if any(name.startswith("perceiver.") for name in config.shapes):
            self.perceiver = Perceiver(config.shapes, "perceiver.", config.perceiver_heads)
        if any(name.startswith(POOL) for name in config.shapes):
            self.clip_proj = nn.ModuleDict({"latent_proj": Pool(config.shapes, config.width)})

    def tokens(
        self, observations: Tensor, goal: Tensor, language: bool = True, proprio: Tensor | None = None
    ) -> Tensor:
        """Embeds observation tokens (B, S, width), a goal (B, 1, width) and proprioception (B, 1, width).

        Args:
            language: whether the goal is a text embedding; otherwise it is that of an image.
        """
        net = self.net
        embed = net.lang_emb if language and hasattr(net, "lang_emb") else net.goal_emb
        parts = [embed(goal), net.tok_emb(observations)]
        if proprio is not None:
            parts.append(net.proprio_emb(proprio))
        return torch.cat(parts, dim=1)

    def encode(
        self, observations: Tensor, goal: Tensor, language: bool = True, proprio: Tensor | None = None
    ) -> MdtCache:
        """Runs the encoder; a goal of zeros is no goal. See ``tokens`` for the arguments."""
        return self.encode_tokens(self.tokens(observations, goal, language, proprio))

    def pool(self, context: Tensor) -> Tensor:
        """Returns what the contrastive loss compares, (B, D)."""
        return self.clip_proj["latent_proj"](context)
