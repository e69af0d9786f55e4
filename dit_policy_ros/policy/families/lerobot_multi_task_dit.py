"""LeRobot's multi-task DiT: a transformer over action tokens, conditioned through adaptive norms alone.

Same function as https://github.com/huggingface/lerobot, ``policies/multi_task_dit``. The observation enters as one
vector. A modulation is linear in SiLU([time features, observation]), so the observation half of every layer's is
computed once in ``encode``; a denoising step adds the time half.

Two objectives share the network: diffusion (integer steps) and flow matching, whose time runs from 0 = noise to
1 = action, unscaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.adaptive import gated_block, modulation, part_of
from dit_policy_ros.policy.attention import PackedAttention, RotaryAttention
from dit_policy_ros.policy.corruption import diffused, diffusion_target
from dit_policy_ros.policy.guide import Guide, guided
from dit_policy_ros.policy.layers import gelu_tanh, sinusoid
from dit_policy_ros.policy.multi_task_dit_config import MultiTaskDitConfig, configure
from dit_policy_ros.policy.samplers import ddim, ddpm, euler, rk4
from dit_policy_ros.policy.schedules import uniform_times
from dit_policy_ros.policy.weights import Shapes

__all__ = [
    "PREFIXES",
    "MultiTaskDit",
    "MultiTaskDitCache",
    "MultiTaskDitConfig",
    "build",
    "configure",
    "detect",
    "rename",
]

PREFIXES = ("",)

CLIP = ("observation_encoder.vision_encoder", "observation_encoder.text_encoder.text_encoder.")
"""What the names of the frozen encoders' weights begin with in released files."""

FLOW_STEPS = 100
SAMPLERS_OF = {"diffusion": {"ddpm": ddpm, "ddim": ddim}, "flow_matching": {"euler": euler, "rk4": rk4}}
"""Objective to its samplers, the default first."""


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are a multi-task DiT."""
    return "noise_predictor.transformer_blocks.0.adaLN_modulation.1.weight" in shapes


def rename(name: str) -> str | None:
    """Leaves out the weights of CLIP: they belong to the System 2 encoder."""
    return None if name.startswith(CLIP) else name


def build(config: MultiTaskDitConfig) -> MultiTaskDit:
    """Returns the network with fresh parameters."""
    return MultiTaskDit(config)


@dataclass(frozen=True)
class MultiTaskDitCache:
    """Everything that depends on the observation alone."""

    modulations: tuple[Tensor, ...]
    """Observation half of every layer's six modulation vectors, with the bias, each (B, 6D)."""


class Block(nn.Module):
    """Attention and feed-forward, each modulated and gated."""

    def __init__(self, c: MultiTaskDitConfig) -> None:
        super().__init__()
        if c.rotary_base is None:
            self.multihead_attn = PackedAttention(c.hidden, c.heads)
        else:
            self.attn = RotaryAttention(c.hidden, c.heads, c.rotary_base)
        self.mlp = nn.Sequential(nn.Linear(c.hidden, c.mlp_hidden), gelu_tanh(), nn.Linear(c.mlp_hidden, c.hidden))
        self.adaLN_modulation = modulation(c.time_width + c.condition_width, c.hidden, 6)

    def forward(self, x: Tensor, time_features: Tensor, slow: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        vectors = slow + part_of(self.adaLN_modulation, time_features, 0, bias=False)  # (B, 6D)
        attention = self.multihead_attn if hasattr(self, "multihead_attn") else self.attn
        return gated_block(x, vectors, attention, self.mlp)


class NoisePredictor(nn.Module):
    """The parameters under ``noise_predictor.`` in a checkpoint."""

    def __init__(self, c: MultiTaskDitConfig) -> None:
        super().__init__()
        width = c.time_width
        # The sinusoid has place 0 in the official sequence; it holds no parameters.
        layers = (nn.Identity(), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.GELU())
        self.time_mlp = nn.Sequential(*layers)
        self.input_proj = nn.Linear(c.action_dim, c.hidden)
        if c.absolute_positions:
            self.pos_embedding = nn.Parameter(torch.zeros(1, c.horizon, c.hidden))
        self.transformer_blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.output_proj = nn.Linear(c.hidden, c.action_dim)


class MultiTaskDit(nn.Module):
    """The denoiser with the text projection. Camera and text features are those of CLIP."""

    def __init__(self, config: MultiTaskDitConfig) -> None:
        super().__init__()
        self.config = config
        self.noise_predictor = NoisePredictor(config)
        if config.text_widths:
            text_encoder = nn.ModuleDict({"projection": nn.Linear(*config.text_widths)})
            self.observation_encoder = nn.ModuleDict({"text_encoder": text_encoder})

    def conditioning(
        self, state: Tensor, camera_features: Tensor | None, text_features: Tensor | None = None
    ) -> Tensor:
        """Returns the observation vector, (B, C): every step's state, cameras and text, oldest step first.

        Args:
            state: (B, S, state width), normalised.
            camera_features: (B, S, cameras, width), class tokens of CLIP's last hidden layer; None without cameras.
            text_features: (B, text width), pooled CLIP text output.

        Raises:
            PolicyError: the widths do not add up to those of the checkpoint.
        """
        parts = [state] if camera_features is None else [state, camera_features.flatten(2)]
        if text_features is not None:
            text = self.observation_encoder["text_encoder"]["projection"](text_features)  # (B, text out)
            parts.append(text[:, None].expand(-1, state.shape[1], -1))
        vector = torch.cat(parts, dim=-1).flatten(1)
        if vector.shape[1] != self.config.condition_width:
            raise PolicyError(
                f"State, cameras and text of {state.shape[1]} steps make {vector.shape[1]} features; the checkpoint "
                f"takes {self.config.condition_width}. Check the cameras and the number of observation steps."
            )
        return vector

    def encode(self, conditioning: Tensor) -> MultiTaskDitCache:
        """Projects the observation vector (B, C) to its half of every modulation."""
        width, blocks = self.config.time_width, self.noise_predictor.transformer_blocks
        return MultiTaskDitCache(tuple(part_of(b.adaLN_modulation, conditioning, width, bias=True) for b in blocks))

    def time_features(self, t: Tensor) -> Tensor:
        """(B,) -> (B, time width)."""
        width = self.config.time_width
        features = sinusoid(t, width, divisor=width // 2 - 1, sines_first=True)
        return self.noise_predictor.time_mlp(features.to(self.noise_predictor.time_mlp[1].weight.dtype))

    def forward(self, cache: MultiTaskDitCache, x: Tensor, t: Tensor | float) -> Tensor:
        """One evaluation of the network.

        Args:
            x: (B, H, A) noisy actions, normalised.
            t: diffusion step, or flow time 0..1; (B,) or one for all.

        Returns:
            (B, H, A) noise, clean actions or velocity, whatever the objective is.
        """
        net = self.noise_predictor
        time = self.time_features(torch.as_tensor(t, device=x.device).expand(len(x)))  # (B, T)
        tokens = net.input_proj(x)  # (B, H, D)
        if self.config.absolute_positions:
            tokens = tokens + net.pos_embedding[:, : x.shape[1]]
        for block, half in zip(net.transformer_blocks, cache.modulations, strict=True):
            tokens = block(tokens, time, half)
        return net.output_proj(tokens)

    denoise = nn.Module.__call__

    def sample(
        self,
        cache: MultiTaskDitCache,
        noise: Tensor,
        step_noise: Tensor | None = None,
        guide: Guide | None = None,
        generator: torch.Generator | None = None,
        **changes: Any,
    ) -> Tensor:
        """Returns normalised actions (B, H, A) from standard normal noise of that shape.

        Args:
            step_noise: draws of 'ddpm', (draws, B, H, A); None draws them from ``generator``.
            changes: fields of the configuration to override, e.g. ``steps=10``.

        Raises:
            PolicyError: the objective or the sampler is unknown.
        """
        c = replace(self.config, **changes)
        denoiser = guided(partial(self, cache), guide)
        samplers = _choose("Objective", c.objective, SAMPLERS_OF)
        sampler = _choose("Sampler", c.sampler or next(iter(samplers)), samplers)
        if c.objective == "flow_matching":
            return sampler(denoiser, noise, uniform_times(c.steps or FLOW_STEPS))
        options = {"step_noise": step_noise, "generator": generator} if sampler is ddpm else {}
        return sampler(denoiser, noise, c.grid(), c.schedule, c.prediction, c.clip, **options)

    def loss(
        self, cache: MultiTaskDitCache, actions: Tensor, noise: Tensor, t: Tensor, padding: Tensor | None = None
    ) -> Tensor:
        """Returns the mean squared error of the configured objective.

        Args:
            actions: (B, H, A), normalised; noise likewise.
            t: (B,) diffusion steps, or flow times.
            padding: (B, H) bool, True for steps that do not count; None counts all.
        """
        c = self.config
        if c.objective == "flow_matching":
            part = t.reshape(-1, 1, 1)
            noisy = part * actions + (1 - (1 - c.sigma_min) * part) * noise
            target = actions - (1 - c.sigma_min) * noise
        else:
            noisy = diffused(actions, noise, t, c.schedule)
            target = diffusion_target(actions, noise, t, c.schedule, c.prediction)
        error = (self(cache, noisy, t) - target).square()
        if padding is None:
            return error.mean()
        valid = (~padding)[..., None].expand_as(error)
        return (error * valid).sum() / valid.sum().clamp(min=1)


def _choose(what: str, name: str, table: Mapping[str, Any]) -> Any:
    if name not in table:
        raise PolicyError(one_of(what, name, table))
    return table[name]
