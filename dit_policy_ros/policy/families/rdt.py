"""RDT-1B and RDT-170M, the diffusion transformer of "RDT-1B: a Diffusion Foundation Model for Bimanual Manipulation".

Same function as https://github.com/thu-ml/RoboticsDiffusionTransformer. A sequence of diffusion step, control
frequency, state and noisy actions cross-attends to language tokens (even blocks) and image tokens (odd blocks).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.policy.corruption import diffused, diffusion_target
from dit_policy_ros.policy.guide import Guide, guided
from dit_policy_ros.policy.layers import (
    KeysValues,
    Mlp,
    TimestepEmbedder,
    adapter,
    check_tokens,
    gelu_tanh,
)
from dit_policy_ros.policy.rdt_config import EXTRA_TOKENS, RdtConfig, configure
from dit_policy_ros.policy.samplers import dpm_solver
from dit_policy_ros.policy.samplers.ddim import Denoiser
from dit_policy_ros.policy.schedules import NoiseSchedule, linspace_open, named
from dit_policy_ros.policy.std_attention import StdAttention, StdCrossAttention, StdNorm
from dit_policy_ros.policy.weights import Shapes

__all__ = ["PREFIXES", "Rdt", "RdtCache", "RdtConfig", "build", "configure", "detect"]

PREFIXES = ("", "module.")
"""The second is that of fine-tuned DeepSpeed files."""


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are an RDT."""
    names = ("model.freq_embedder.mlp.0.weight", "model.img_cond_pos_embed", "model.blocks.0.cross_attn.kv.weight")
    return all(name in shapes for name in names)


def build(config: RdtConfig) -> Rdt:
    """Returns the network with fresh parameters."""
    return Rdt(config)


@dataclass(frozen=True)
class RdtCache:
    """Everything that depends on images and language alone."""

    keys_values: tuple[KeysValues, ...]
    """Of every block's cross-attention, each (B, heads, tokens, head_dim)."""
    lang_mask: Tensor | None
    """(B, L) bool, True may be attended; None attends to all."""


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; each after a norm and added."""

    def __init__(self, c: RdtConfig) -> None:
        super().__init__()
        sizes = (c.hidden, c.heads, c.mean_square_norm)
        self.norm1 = StdNorm(c.hidden, c.mean_square_norm)
        self.attn = StdAttention(*sizes)
        self.norm2 = StdNorm(c.hidden, c.mean_square_norm)
        self.cross_attn = StdCrossAttention(*sizes)
        self.norm3 = StdNorm(c.hidden, c.mean_square_norm)
        self.ffn = Mlp(c.hidden, c.ffn_hidden, c.hidden, gelu_tanh())

    def forward(self, x: Tensor, keys_values: KeysValues, mask: Tensor | None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.attn(self.norm1(x))
        x = x + self.cross_attn(self.norm2(x), keys_values, mask)
        return x + self.ffn(self.norm3(x))


class FinalLayer(nn.Module):
    """Norm and a two-layer MLP to the action width."""

    def __init__(self, c: RdtConfig) -> None:
        super().__init__()
        self.norm_final = StdNorm(c.hidden, c.mean_square_norm)
        self.ffn_final = Mlp(c.hidden, c.hidden, c.action_dim, gelu_tanh())

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, A)."""
        return self.ffn_final(self.norm_final(x))


class Transformer(nn.Module):
    """The parameters under ``model.`` in a checkpoint."""

    def __init__(self, c: RdtConfig) -> None:
        super().__init__()
        self.t_embedder = TimestepEmbedder(c.hidden)
        self.freq_embedder = TimestepEmbedder(c.hidden)
        self.x_pos_embed = nn.Parameter(torch.zeros(1, EXTRA_TOKENS + c.horizon, c.hidden))
        self.lang_cond_pos_embed = nn.Parameter(torch.zeros(1, c.max_lang_tokens, c.hidden))
        self.img_cond_pos_embed = nn.Parameter(torch.zeros(1, c.img_tokens, c.hidden))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.final_layer = FinalLayer(c)

    def forward(self, x: Tensor, cache: RdtCache) -> Tensor:
        """Tokens (B, 3 + H, D) -> (B, 3 + H, A)."""
        for number, (block, keys_values) in enumerate(zip(self.blocks, cache.keys_values, strict=True)):
            x = block(x, keys_values, cache.lang_mask if number % 2 == 0 else None)
        return self.final_layer(x)


class Rdt(nn.Module):
    """RDT with its adapters. Language and image tokens are raw features of the encoders."""

    def __init__(self, config: RdtConfig) -> None:
        super().__init__()
        self.config = config
        self.lang_adaptor = adapter(config.lang_widths, gelu_tanh)
        self.img_adaptor = adapter(config.img_widths, gelu_tanh)
        self.state_adaptor = adapter(config.state_widths, gelu_tanh)
        self.model = Transformer(config)

    def conditions(self, lang_tokens: Tensor, img_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Returns adapted language (B, L, D) and image (B, M, D) tokens with their positions; see ``encode``."""
        c = self.config
        check_tokens(lang_tokens, c.lang_widths[0], c.max_lang_tokens, "language")
        check_tokens(img_tokens, c.img_widths[0], c.img_tokens, "image", exact=True)
        lang = self.lang_adaptor(lang_tokens)
        return (
            lang + self.model.lang_cond_pos_embed[:, : lang.shape[1]],
            self.img_adaptor(img_tokens) + self.model.img_cond_pos_embed,
        )

    def project(self, conditions: tuple[Tensor, Tensor], lang_mask: Tensor | None = None) -> RdtCache:
        """Projects the cross-attention keys and values of every block: language in even ones, images in odd ones."""
        blocks = enumerate(self.model.blocks)
        return RdtCache(tuple(block.cross_attn.keys_values(conditions[i % 2]) for i, block in blocks), lang_mask)

    def encode(self, lang_tokens: Tensor, img_tokens: Tensor, lang_mask: Tensor | None = None) -> RdtCache:
        """Adapts the conditions and projects the cross-attention keys and values of every block.

        Args:
            lang_tokens: (B, L, lang width), L at most ``max_lang_tokens``.
            img_tokens: (B, img_tokens, img width); older frame first, then cameras, then patches.
            lang_mask: (B, L) bool, True for words, False for padding.

        Raises:
            PolicyError: a feature has another width, or there are too many tokens.
        """
        return self.project(self.conditions(lang_tokens, img_tokens), lang_mask)

    def forward(
        self, cache: RdtCache, x: Tensor, t: Tensor, state: Tensor, action_mask: Tensor, frequency_hz: Tensor
    ) -> Tensor:
        """One evaluation of the denoiser.

        Args:
            x: (B, H, A) noisy actions in the unified space.
            t: (B,) or (1,) diffusion step, 0 (clean) to ``train_steps - 1`` (noise).
            state: (B, 1, A) in the unified space.
            action_mask: (B, 1, A), 1 for slots that the robot has.
            frequency_hz: (B,) control frequency.

        Returns:
            (B, H, A) prediction of the clean actions, or of the noise.
        """
        rows = torch.cat([state, x], dim=1)  # (B, 1+H, A)
        rows = torch.cat([rows, action_mask.to(rows).expand_as(rows)], dim=2)  # (B, 1+H, 2A)
        step = self.model.t_embedder(t).expand(len(x), -1)  # (B, D)
        scalars = torch.stack([step, self.model.freq_embedder(frequency_hz)], dim=1)  # (B, 2, D)
        tokens = torch.cat([scalars, self.state_adaptor(rows)], dim=1) + self.model.x_pos_embed
        return self.model(tokens, cache)[:, EXTRA_TOKENS:]

    denoise = nn.Module.__call__

    @cached_property
    def schedule(self) -> NoiseSchedule:
        """Noise of every diffusion step."""
        return named(self.config.beta_schedule, self.config.train_steps)

    def grid(self, steps: int | None = None) -> tuple[int, ...]:
        """Returns the diffusion steps of sampling."""
        return linspace_open(self.config.train_steps, steps or self.config.steps)

    def denoiser(self, cache: RdtCache, state: Tensor, action_mask: Tensor, frequency_hz: Tensor) -> Denoiser:
        """Returns the network of one observation; see ``forward`` for the arguments."""
        return lambda x, step: self(cache, x, torch.tensor([step], device=x.device), state, action_mask, frequency_hz)

    def sample(
        self,
        cache: RdtCache,
        noise: Tensor,
        state: Tensor,
        action_mask: Tensor,
        frequency_hz: Tensor,
        steps: int | None = None,
        guide: Guide | None = None,
    ) -> Tensor:
        """Returns clean actions (B, H, A), zero in slots the robot lacks, from standard normal noise (B, H, A).

        DPM-Solver++ of order 2; the mask is applied once, after the last step. See ``forward`` for the arguments.
        """
        denoiser = guided(self.denoiser(cache, state, action_mask, frequency_hz), guide)
        return dpm_solver(denoiser, noise, self.grid(steps), self.schedule, self.config.prediction) * action_mask

    def loss(
        self,
        cache: RdtCache,
        actions: Tensor,
        noise: Tensor,
        t: Tensor,
        state: Tensor,
        action_mask: Tensor,
        frequency_hz: Tensor,
    ) -> Tensor:
        """Returns the mean squared error over all slots, the masked ones included; t is (B,) integer steps."""
        prediction = self(cache, diffused(actions, noise, t, self.schedule), t, state, action_mask, frequency_hz)
        return F.mse_loss(prediction, diffusion_target(actions, noise, t, self.schedule, self.config.prediction))
