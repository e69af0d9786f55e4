"""CogACT's action model ("CogACT: A Foundational Vision-Language-Action Model ...", Li et al., 2024).

Same function as https://github.com/microsoft/CogACT. A plain transformer over one condition token (cognition feature
of the vision-language model plus diffusion step) and the noisy actions; DDPM on the noise, sampled with DDIM and
classifier-free guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.attention import FusedAttention
from dit_policy_ros.policy.cogact_config import CogActConfig, configure
from dit_policy_ros.policy.corruption import diffused
from dit_policy_ros.policy.guide import Guide, guided
from dit_policy_ros.policy.layers import Mlp, TimestepEmbedder, check_tokens, gelu_tanh
from dit_policy_ros.policy.samplers import ddim, ddpm
from dit_policy_ros.policy.samplers.ddim import Denoiser
from dit_policy_ros.policy.schedules import NoiseSchedule, linear, squared_cosine, strided
from dit_policy_ros.policy.weights import Shapes

__all__ = ["PREFIXES", "CogAct", "CogActCache", "CogActConfig", "build", "configure", "detect"]

PREFIXES = ("", "model.action_model.", "action_model.")
"""The second is that of released files; their averaged weights (``ema_diffusion``) are not used, as officially."""

EPS = 1e-6


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are a CogACT action model."""
    names = ("net.z_embedder.uncondition", "net.history_embedder.linear.weight", "net.positional_embedding")
    return all(name in shapes for name in names) and not any("adaLN_modulation" in name for name in shapes)


def build(config: CogActConfig) -> CogAct:
    """Returns the network with fresh parameters."""
    return CogAct(config)


@dataclass(frozen=True)
class CogActCache:
    """What the cognition token gives."""

    condition: Tensor
    """(B, 1, D)."""
    null: Tensor | None
    """(1, 1, D), the condition of guidance's other half; None where the checkpoint's null token does not fit."""


class Embedder(nn.Module):
    """One linear layer, named as in the checkpoint."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., width) to (..., hidden)."""
        return self.linear(x)


class ConditionEmbedder(Embedder):
    """Embeds the cognition token, and holds the null token of guidance."""

    def __init__(self, width: int, hidden: int, null_width: int) -> None:
        super().__init__(width, hidden)
        self.uncondition = nn.Parameter(torch.zeros(1, null_width))


class FinalLayer(Embedder):
    """Norm without parameters and a linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, A)."""
        return self.linear(F.layer_norm(x, x.shape[-1:], eps=EPS))


class Block(nn.Module):
    """Self-attention and MLP, each after a norm without parameters and added."""

    def __init__(self, c: CogActConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c.hidden, EPS, elementwise_affine=False)
        self.attn = FusedAttention(c.hidden, c.heads)
        self.norm2 = nn.LayerNorm(c.hidden, EPS, elementwise_affine=False)
        self.mlp = Mlp(c.hidden, c.mlp_hidden, c.hidden, gelu_tanh())

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """The parameters under ``net.`` in a checkpoint."""

    def __init__(self, c: CogActConfig) -> None:
        super().__init__()
        self.history_embedder = Embedder(c.history_dim, c.hidden)  # in every checkpoint, never used
        self.x_embedder = Embedder(c.action_dim, c.hidden)
        self.t_embedder = TimestepEmbedder(c.hidden)
        self.z_embedder = ConditionEmbedder(c.token_width, c.hidden, c.null_width)
        self.positional_embedding = nn.Parameter(torch.zeros(1 + c.horizon, c.hidden))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.final_layer = FinalLayer(c.hidden, c.action_dim)

    def forward(self, condition: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Condition (B, 1, D), noisy actions (B, H, A), steps (B,) or (1,) -> noise (B, H, A)."""
        first = condition + self.t_embedder(t)[:, None]  # (B, 1, D)
        x = torch.cat([first, self.x_embedder(x)], dim=1) + self.positional_embedding  # (B, 1+H, D)
        for block in self.blocks:
            x = block(x)
        return self.final_layer(x)[:, 1:]


class CogAct(nn.Module):
    """CogACT's action model. The cognition token is the raw feature of the vision-language model."""

    def __init__(self, config: CogActConfig) -> None:
        super().__init__()
        self.config = config
        self.net = Transformer(config)

    @cached_property
    def schedule(self) -> NoiseSchedule:
        """Noise of every diffusion step."""
        steps = self.config.train_steps
        if self.config.noise_schedule == "linear":  # variances of 1000 steps, scaled to this number of them
            return linear(steps, 0.1 / steps, 20 / steps, single_precision=False)
        return squared_cosine(steps, single_precision=False)

    def encode(self, cognition_token: Tensor, dropped: Tensor | None = None) -> CogActCache:
        """Embeds the cognition token (B, 1, token_width).

        Args:
            dropped: (B,) bool, samples that get the null token instead, in training.

        Raises:
            PolicyError: the token has another width, or is to be dropped and the null token has another width.
        """
        check_tokens(cognition_token, self.config.token_width, 1, "cognition", exact=True)
        embedder = self.net.z_embedder
        null = embedder.uncondition[None] if self.config.null_width == self.config.token_width else None
        if dropped is not None:
            if null is None:
                raise PolicyError(self._no_null)
            cognition_token = torch.where(dropped[:, None, None], null, cognition_token)
        return CogActCache(embedder(cognition_token), None if null is None else embedder(null))

    @property
    def _no_null(self) -> str:
        c = self.config
        return f"The null token is {c.null_width} wide, the cognition token {c.token_width}; use a guidance scale of 1."

    def forward(self, cache: CogActCache, x: Tensor, t: Tensor, guidance_scale: float = 1.0) -> Tensor:
        """Returns the predicted noise (B, H, A).

        Args:
            x: (B, H, A) noisy actions.
            t: (B,) or (1,) diffusion step, 0 (clean) to ``train_steps - 1`` (noise).
            guidance_scale: null prediction plus this times its difference to the conditional one; off at 1 or below.

        Raises:
            PolicyError: guidance was asked for, but the null token has another width.
        """
        if guidance_scale <= 1:
            return self.net(cache.condition, x, t)
        if cache.null is None:
            raise PolicyError(self._no_null)
        conditions = torch.cat([cache.condition, cache.null.expand_as(cache.condition)])  # (2B, 1, D)
        given, null = self.net(conditions, x.repeat(2, 1, 1), t.expand(len(x)).repeat(2)).chunk(2)
        return null + guidance_scale * (given - null)

    denoise = nn.Module.__call__

    def grid(self, steps: int | None = None) -> tuple[int, ...]:
        """Returns the diffusion steps of sampling.

        Raises:
            PolicyError: no stride gives this step count.
        """
        return strided(self.config.train_steps, steps or self.config.steps)

    def denoiser(self, cache: CogActCache, guidance_scale: float | None = None) -> Denoiser:
        """Returns the network of one observation; without a scale it is guided with the checkpoint's."""
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        return lambda x, step: self(cache, x, torch.tensor([step], device=x.device), scale)

    def sample(
        self,
        cache: CogActCache,
        noise: Tensor,
        steps: int | None = None,
        guidance_scale: float | None = None,
        step_noise: Tensor | Sequence[Tensor] | None = None,
        ancestral: bool = False,
        guide: Guide | None = None,
    ) -> Tensor:
        """Returns normalised actions (B, H, A) from standard normal noise (B, H, A); nothing is clipped.

        Args:
            steps: of DDIM; only counts that an integer stride gives.
            ancestral: DDPM with all training steps, with ``step_noise`` (steps, B, H, A) in order of execution.

        Raises:
            PolicyError: no stride gives this step count.
        """
        denoiser = guided(self.denoiser(cache, guidance_scale), guide)
        if ancestral:
            return ddpm(denoiser, noise, self.grid(self.config.train_steps), self.schedule, step_noise=step_noise)
        return ddim(denoiser, noise, self.grid(steps), self.schedule)

    def loss(self, cache: CogActCache, actions: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Returns the mean squared error of the noise at (B,) integer steps."""
        return F.mse_loss(self(cache, diffused(actions, noise, t, self.schedule), t), noise)
