"""UWM, the denoiser of "Unified World Models: Coupling Video and Action Diffusion".

Same function as https://github.com/WEIRDLabUW/unified-world-model. Actions and latent next frames share one sequence,
each with its own diffusion step, so one network is a policy, a forward and an inverse dynamics model. The observations
enter through adaptive norms alone; their half of every modulation is computed in ``encode``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.adaptive import AdaptiveBlock, AdaptiveHead, part_of
from dit_policy_ros.policy.corruption import diffused
from dit_policy_ros.policy.encoders.world_frames import WorldFrames
from dit_policy_ros.policy.guide import Guide, guided_actions
from dit_policy_ros.policy.layers import sinusoid
from dit_policy_ros.policy.patches import Patchifier
from dit_policy_ros.policy.samplers import ddim
from dit_policy_ros.policy.samplers.ddim import Denoiser
from dit_policy_ros.policy.schedules import NoiseSchedule, leading, named
from dit_policy_ros.policy.uwm_config import NET, UwmConfig, configure
from dit_policy_ros.policy.weights import Shapes

__all__ = ["PREFIXES", "Uwm", "UwmCache", "UwmConfig", "UwmLoss", "build", "configure", "detect", "rename"]

PREFIXES = ("", "model.")
FROZEN = ("obs_encoder.vae.vae.", "obs_encoder.text_encoder.language_model.")
"""Prefixes of the autoencoder and of CLIP in released files."""

MODES = {
    "policy": ("sampled", "noise"),
    "forward_dynamics": ("clean", "sampled"),
    "inverse_dynamics": ("sampled", "clean"),
    "marginal_next_obs": ("noise", "sampled"),
    "joint": ("sampled", "sampled"),
}
"""What actions and next observations are: sampled, given clean (step 0), or left at noise (first sampling step)."""


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are a UWM."""
    names = ("timestep_embedding.proj.0.weight", "obs_patchifier.patch_encoder.weight")
    return all(NET + name in shapes for name in names)


def rename(name: str) -> str | None:
    """Leaves out the frozen autoencoder and language model."""
    return None if name.startswith(FROZEN) else name


def build(config: UwmConfig) -> Uwm:
    """Returns the network with fresh parameters."""
    return Uwm(config)


@dataclass(frozen=True)
class UwmCache:
    """Everything that depends on the current observations alone."""

    modulations: tuple[Tensor, ...]
    """Their part of every block's six modulation vectors, with the bias, each (B, 6D)."""
    head: Tensor
    """Their part of the head's two, (B, 2D)."""

    def __add__(self, other: UwmCache) -> UwmCache:
        pairs = zip(self.modulations, other.modulations, strict=True)
        return UwmCache(tuple(a + b for a, b in pairs), self.head + other.head)


class UwmLoss(NamedTuple):
    """The loss of training, in its parts, and what the network was given."""

    action: Tensor
    dynamics: Tensor
    action_step: Tensor
    """(B,) steps of the actions; the noisiest for samples without actions."""
    noisy_action: Tensor
    noisy_next_obs: Tensor
    predicted_action: Tensor
    predicted_next_obs: Tensor


class Transformer(nn.Module):
    """The parameters under ``noise_pred_net.`` in a checkpoint."""

    def __init__(self, c: UwmConfig) -> None:
        super().__init__()
        width, inner, condition = c.time_width, c.action_hidden, c.condition_width + c.time_width
        proj = nn.Sequential(nn.Linear(2 * width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.timestep_embedding = nn.ModuleDict({"proj": proj})
        self.action_encoder = nn.Sequential(nn.Linear(c.action_dim, inner), nn.Mish(), nn.Linear(inner, c.hidden))
        self.action_decoder = nn.Sequential(nn.Linear(c.hidden, inner), nn.Mish(), nn.Linear(inner, c.action_dim))
        self.obs_patchifier = Patchifier(c.channels, c.hidden, c.patch)
        self.registers = nn.Parameter(torch.zeros(1, c.registers, c.hidden)) if c.registers is not None else None
        self.pos_embed = nn.Parameter(torch.zeros(1, c.tokens, c.hidden))
        blocks = (
            AdaptiveBlock(c.hidden, c.heads, c.mlp_hidden, condition, nn.GELU(), c.qkv_bias) for _ in range(c.depth)
        )
        self.blocks = nn.ModuleList(blocks)
        self.head = AdaptiveHead(c.hidden, condition)


class Uwm(nn.Module):
    """The denoiser with the image encoder of its checkpoint."""

    def __init__(self, config: UwmConfig) -> None:
        super().__init__()
        self.config = config
        self.noise_pred_net = Transformer(config)
        self.obs_encoder = WorldFrames(config.frames)

    @property
    def schedule(self) -> NoiseSchedule:
        """Corruption of both modalities."""
        return named(self.config.beta_schedule, self.config.train_steps)

    def encode(self, condition: Tensor, start: int = 0, bias: bool = True) -> UwmCache:
        """Projects the vector that ``obs_encoder`` makes of the present, (B, C), to its part of every modulation.

        Args:
            start: first column of the vector, where only some of them are given; the caches of all parts are added.
            bias: exactly one part has it.
        """
        net = self.noise_pred_net
        parts = [part_of(m.adaLN_modulation, condition, start, bias) for m in (*net.blocks, net.head)]
        return UwmCache(tuple(parts[:-1]), parts[-1])

    def time_features(self, action_t: Tensor, next_obs_t: Tensor) -> Tensor:
        """(B,) diffusion steps of both modalities -> (B, time width)."""
        width = self.config.time_width
        steps = (sinusoid(t, width, divisor=width // 2 - 1, sines_first=True) for t in (action_t, next_obs_t))
        proj = self.noise_pred_net.timestep_embedding["proj"]
        return proj(torch.cat(list(steps), dim=-1).to(proj[0].weight.dtype))

    def forward(
        self, cache: UwmCache, action: Tensor, action_t: Tensor | int, next_obs: Tensor, next_obs_t: Tensor | int
    ) -> tuple[Tensor, Tensor]:
        """One evaluation of the network.

        Args:
            action: (B, H, A) noisy actions.
            next_obs: (B, views, C, T, h, w) noisy latents of the next frames.
            action_t: diffusion step, (B,) or one for all; next_obs_t likewise.

        Returns:
            The noise of both.
        """
        net, c = self.noise_pred_net, self.config
        steps = (torch.as_tensor(t, device=action.device).expand(len(action)) for t in (action_t, next_obs_t))
        time = self.time_features(*steps)  # (B, T)
        tokens = [net.action_encoder(action), net.obs_patchifier.encode(next_obs)]  # (B, H, D), (B, patches, D)
        if net.registers is not None:
            tokens.append(net.registers.expand(len(action), -1, -1))
        x = torch.cat(tokens, dim=1) + net.pos_embed
        for block, slow in zip(net.blocks, cache.modulations, strict=True):
            x = block(x, slow + part_of(block.adaLN_modulation, time, c.condition_width, bias=False))
        x = net.head(x, cache.head + part_of(net.head.adaLN_modulation, time, c.condition_width, bias=False))
        patches = x[:, action.shape[1] : action.shape[1] + tokens[1].shape[1]]
        return net.action_decoder(x[:, : action.shape[1]]), net.obs_patchifier.decode(patches, next_obs.shape)

    denoise = nn.Module.__call__

    def grid(self, steps: int | None = None) -> tuple[int, ...]:
        """Returns the diffusion steps of sampling."""
        return leading(self.config.train_steps, steps or self.config.steps)

    def denoiser(self, cache: UwmCache, next_obs: Tensor, steps: int | None = None) -> Denoiser:
        """Returns the network as a policy: of actions alone, with next observations (B, ...) held at noise."""
        held = self.grid(steps)[0]
        return lambda action, step: self(cache, action, step, next_obs, held)[0]

    def sample(
        self,
        cache: UwmCache,
        action: Tensor,
        next_obs: Tensor,
        mode: str = "policy",
        steps: int | None = None,
        guide: Guide | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns actions and next observations; what is not sampled comes back as it was.

        Args:
            action: (B, H, A) standard normal noise, or clean actions where ``mode`` takes them as given.
            next_obs: (B, views, C, T, h, w) likewise.
            mode: a key of ``MODES``.
            guide: of the actions.

        Raises:
            PolicyError: unknown mode.
        """
        if mode not in MODES:
            raise PolicyError(one_of("Mode", mode, MODES))
        grid = self.grid(steps)
        roles, size = MODES[mode], math.prod(action.shape[1:]) if MODES[mode][0] == "sampled" else 0

        def unpacked(x: Tensor) -> tuple[Tensor, Tensor]:
            moved = x[:, :size].reshape(action.shape) if roles[0] == "sampled" else action
            return moved, x[:, size:].reshape(next_obs.shape) if roles[1] == "sampled" else next_obs

        def packed(pair: tuple[Tensor, Tensor]) -> Tensor:
            return torch.cat([each.flatten(1) for each, role in zip(pair, roles, strict=True) if role == "sampled"], 1)

        def denoiser(x: Tensor, step: int) -> Tensor:
            action, next_obs = unpacked(x)
            times = [{"sampled": step, "clean": 0, "noise": grid[0]}[role] for role in roles]
            network = guided_actions(lambda action, _: self(cache, action, times[0], next_obs, times[1]), guide)
            return packed(network(action, step))

        return unpacked(ddim(denoiser, packed((action, next_obs)), grid, self.schedule, clip=self.config.clip))

    def loss(
        self,
        cache: UwmCache,
        action: Tensor,
        next_obs: Tensor,
        noises: tuple[Tensor, Tensor],
        steps: tuple[Tensor, Tensor],
        action_mask: Tensor | None = None,
    ) -> UwmLoss:
        """Returns the squared errors of both noises; the loss of training is their sum.

        Args:
            noises: of actions and next observations.
            steps: (B,) diffusion steps of both.
            action_mask: (B,) bool, False for samples without actions, whose action step becomes the noisiest.
        """
        action_step = steps[0]
        if action_mask is not None:
            action_step = torch.where(action_mask, action_step, self.config.train_steps - 1)
        noisy_action = diffused(action, noises[0], action_step, self.schedule)
        noisy_next_obs = diffused(next_obs, noises[1], steps[1], self.schedule)
        predicted = self(cache, noisy_action, action_step, noisy_next_obs, steps[1])
        errors = (F.mse_loss(got, noise) for got, noise in zip(predicted, noises, strict=True))
        return UwmLoss(*errors, action_step, noisy_action, noisy_next_obs, *predicted)
