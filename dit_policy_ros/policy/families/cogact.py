"""CogACT's action model ("CogACT: A Foundational Vision-Language-Action Model ...", Li et al., 2024).

Same function as https://github.com/microsoft/CogACT. A plain transformer over one condition token (cognition feature
of the vision-language model plus diffusion step) and the noisy actions; DDPM on the noise, sampled with DDIM and
classifier-free guidance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.attention import FusedAttention
from dit_policy_ros.policy.corruption import diffused
from dit_policy_ros.policy.guide import Guide, guided
from dit_policy_ros.policy.layers import Mlp, TimestepEmbedder, check_tokens, gelu_tanh
from dit_policy_ros.policy.samplers import ddim, ddpm
from dit_policy_ros.policy.schedules import NoiseSchedule, squared_cosine, strided
from dit_policy_ros.policy.weights import Shapes, count_layers

PREFIXES = ("", "model.action_model.", "action_model.")
"""The second is that of released files; their averaged weights (``ema_diffusion``) are not used, as officially."""

EPS = 1e-6
HEADS_BY_TYPE = {"DiT-S": 4, "DiT-B": 12, "DiT-L": 16}
HEADS_BY_WIDTH = {384: 4, 768: 12, 1024: 16}


@dataclass(frozen=True)
class CogActConfig:
    """Sizes from the parameter shapes; heads from ``action_model_type``, ``num_heads`` or the released widths."""

    hidden: int
    depth: int
    heads: int
    mlp_hidden: int
    horizon: int
    action_dim: int
    history_dim: int
    token_width: int
    null_width: int
    """Width of the null token; officially always 4096. Guidance needs it to be ``token_width``."""
    train_steps: int = 100
    steps: int = 10
    guidance_scale: float = 1.5


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are a CogACT action model."""
    names = ("net.z_embedder.uncondition", "net.history_embedder.linear.weight", "net.positional_embedding")
    return all(name in shapes for name in names) and not any("adaLN_modulation" in name for name in shapes)


def configure(settings: Mapping[str, Any], shapes: Shapes) -> CogActConfig:
    """Returns the configuration from the official ``vla`` settings (may be empty) and the parameter shapes.

    Raises:
        CheckpointError: the number of heads, which shapes do not tell, is unknown.
    """
    settings = settings.get("vla", settings)
    rows, hidden = shapes["net.positional_embedding"]
    kind = settings.get("action_model_type")
    heads = settings.get("num_heads") or HEADS_BY_TYPE.get(kind) or HEADS_BY_WIDTH.get(hidden)
    if heads is None or hidden % heads:
        raise CheckpointError(
            f"CogACT of width {hidden}: the number of heads cannot be seen in the weights; "
            f"say 'num_heads' or 'action_model_type' ({', '.join(HEADS_BY_TYPE)}) in config.json."
        )
    return CogActConfig(
        hidden=hidden,
        depth=count_layers(shapes, "net.blocks."),
        heads=heads,
        mlp_hidden=shapes["net.blocks.0.mlp.fc1.weight"][0],
        horizon=rows - 1,
        action_dim=shapes["net.final_layer.linear.weight"][0],
        history_dim=shapes["net.history_embedder.linear.weight"][1],
        token_width=shapes["net.z_embedder.linear.weight"][1],
        null_width=shapes["net.z_embedder.uncondition"][1],
        train_steps=settings.get("train_steps", 100),
        steps=settings.get("inference_steps", 10),
        guidance_scale=settings.get("guidance_scale", 1.5),
    )


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
        return squared_cosine(self.config.train_steps, single_precision=False)

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
        c = self.config
        scale = c.guidance_scale if guidance_scale is None else guidance_scale

        def denoiser(x: Tensor, step: int) -> Tensor:
            return self(cache, x, torch.tensor([step], device=x.device), scale)

        if ancestral:
            grid = strided(c.train_steps, c.train_steps)
            return ddpm(guided(denoiser, guide), noise, grid, self.schedule, step_noise=step_noise)
        return ddim(guided(denoiser, guide), noise, strided(c.train_steps, steps or c.steps), self.schedule)

    def loss(self, cache: CogActCache, actions: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Returns the mean squared error of the noise at (B,) integer steps."""
        return F.mse_loss(self(cache, diffused(actions, noise, t, self.schedule), t), noise)
