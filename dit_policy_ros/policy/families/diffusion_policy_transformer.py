"""The low-dimensional transformer of "Diffusion Policy: Visuomotor Policy Learning via Action Diffusion".

Same function as https://github.com/real-stanford/diffusion_policy, ``transformer_for_diffusion`` with its policy. Three
wirings, told apart by the parameter names: decoder over [time, observations]; decoder over [time] with the observations
painted into the sample; encoder alone with the time as first token.

With the per-token condition encoder, keys and values of the observation tokens do not depend on the diffusion step
and are cached; each step adds those of the time token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.corruption import diffused, diffusion_target
from dit_policy_ros.policy.diffusion_transformer_config import DiffusionTransformerConfig, configure
from dit_policy_ros.policy.guide import Guide, guided_actions
from dit_policy_ros.policy.layers import KeysValues, sinusoid
from dit_policy_ros.policy.prenorm import PreNormStack
from dit_policy_ros.policy.samplers import ddim, ddpm
from dit_policy_ros.policy.scaling import Scalings
from dit_policy_ros.policy.weights import Shapes

__all__ = [
    "PREFIXES",
    "DiffusionTransformer",
    "DiffusionTransformerCache",
    "DiffusionTransformerConfig",
    "build",
    "configure",
    "detect",
    "rename",
]

PREFIXES = ("", "state_dicts.ema_model.", "state_dicts.model.")

UNUSED = ("_dummy_variable", "mask_generator.", "model._dummy_variable", "obs_encoder.")
SAMPLERS = {"ddpm": ddpm, "ddim": ddim}


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are a Diffusion Policy transformer."""
    return all(f"model.{name}" in shapes for name in ("input_emb.weight", "pos_emb", "ln_f.weight", "head.weight"))


def rename(name: str) -> str | None:
    """Leaves out what the network does not use: placeholders, statistics, an image encoder."""
    return None if name.startswith(UNUSED) or ".input_stats." in name else name


def build(config: DiffusionTransformerConfig) -> DiffusionTransformer:
    """Returns the network with fresh parameters."""
    return DiffusionTransformer(config)


@dataclass(frozen=True)
class DiffusionTransformerCache:
    """Everything that depends on the observations alone."""

    observations: Tensor | None
    """(B, S, observation width), normalised; None where only the denoiser is run."""
    tokens: Tensor | None = None
    """(B, S, D) condition tokens with positions, before the condition encoder; None where they are painted."""
    keys_values: tuple[KeysValues, ...] | None = None
    """Of the observation tokens in every layer, each (B, heads, S, head_dim)."""


class Transformer(nn.Module):
    """The parameters under ``model.`` in a checkpoint."""

    def __init__(self, c: DiffusionTransformerConfig) -> None:
        super().__init__()
        self.input_emb = nn.Linear(c.input_dim, c.width)
        self.pos_emb = nn.Parameter(torch.zeros(1, c.positions, c.width))
        if c.condition_dim:
            self.cond_obs_emb = nn.Linear(c.condition_dim, c.width)
        if c.condition_tokens:
            self.cond_pos_emb = nn.Parameter(torch.zeros(1, c.condition_tokens, c.width))
            self.decoder = PreNormStack(c.layers, c.width, c.heads, c.feed_forward, cross=True)
        if c.condition_layers or not c.condition_tokens:
            depth = c.condition_layers or c.layers
            self.encoder = PreNormStack(depth, c.width, c.heads, c.feed_forward, cross=False)
        else:
            hidden = 4 * c.width
            self.encoder = nn.Sequential(nn.Linear(c.width, hidden), nn.Mish(), nn.Linear(hidden, c.width))
        self.ln_f = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, c.input_dim)
        seen = c.condition_tokens if c.condition_dim else None
        self.register_buffer("mask", torch.zeros(c.positions, c.positions) if c.causal else None)
        self.register_buffer("memory_mask", torch.zeros(c.positions, seen) if c.causal and seen else None)


class DiffusionTransformer(nn.Module):
    """The denoiser with the normaliser of its checkpoint."""

    def __init__(self, config: DiffusionTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Transformer(config)
        if config.normalized:
            self.normalizer = Scalings(config.normalized)

    def normalize(self, name: str, x: Tensor) -> Tensor:
        """Maps raw 'obs' or 'action' (..., width) to the network's range."""
        return self.normalizer.of(name).normalize(x)

    def unnormalize(self, name: str, x: Tensor) -> Tensor:
        """Inverse of ``normalize``."""
        return self.normalizer.of(name).unnormalize(x)

    def executed(self, actions: Tensor) -> Tensor:
        """Returns the part of a chunk (B, H, A) that the official policy executes."""
        start = self.config.observation_steps - 1
        return actions[:, start : start + self.config.action_steps]

    def encode(self, observations: Tensor | None = None) -> DiffusionTransformerCache:
        """Projects the observations, (B, S, width), normalised, oldest first.

        Raises:
            PolicyError: the observations are condition tokens, and are absent or of another number.
        """
        c, net = self.config, self.model
        if c.condition_dim is None:
            return DiffusionTransformerCache(observations)
        if observations is None or observations.shape[1] != c.observation_steps:
            got = "none" if observations is None else observations.shape[1]
            raise PolicyError(f"This checkpoint takes {c.observation_steps} observation steps; got {got}.")
        tokens = net.cond_obs_emb(observations) + net.cond_pos_emb[:, 1:]  # (B, S, D)
        if c.condition_layers:
            return DiffusionTransformerCache(observations, tokens)
        memory = net.encoder(tokens)
        layers = net.decoder.layers
        return DiffusionTransformerCache(
            observations, tokens, tuple(layer.multihead_attn.keys_values(memory) for layer in layers)
        )

    def _time_token(self, t: Tensor | int, batch: int) -> Tensor:
        steps = torch.as_tensor(t, device=self.model.pos_emb.device).expand(batch)
        token = sinusoid(steps, self.config.width, divisor=self.config.width // 2 - 1, sines_first=True)
        return token[:, None].to(self.model.pos_emb.dtype)  # (B, 1, D)

    def memory(self, cache: DiffusionTransformerCache, t: Tensor | int, batch: int) -> Tensor:
        """Returns the output of the condition encoder, (B, 1 + S, D), without use of the cached keys and values."""
        token = self._time_token(t, batch) + self.model.cond_pos_emb[:, :1]
        return self.model.encoder(token if cache.tokens is None else torch.cat([token, cache.tokens], dim=1))

    def _memories(self, cache: DiffusionTransformerCache, t: Tensor | int, batch: int) -> list[KeysValues]:
        layers = [layer.multihead_attn for layer in self.model.decoder.layers]
        if cache.keys_values is None:
            memory = self.memory(cache, t, batch)
            return [layer.keys_values(memory) for layer in layers]
        time = self.model.encoder(self._time_token(t, batch) + self.model.cond_pos_emb[:, :1])  # (B, 1, D)
        pairs = [(layer.keys_values(time), slow) for layer, slow in zip(layers, cache.keys_values, strict=True)]
        return [(torch.cat([k, ks], dim=2), torch.cat([v, vs], dim=2)) for (k, v), (ks, vs) in pairs]

    def forward(self, cache: DiffusionTransformerCache, x: Tensor, t: Tensor | int) -> Tensor:
        """One evaluation of the network.

        Args:
            x: (B, H, channels) noisy sample, normalised.
            t: diffusion step, (B,) or one for all.

        Returns:
            (B, H, channels) noise or clean sample.
        """
        net, batch = self.model, len(x)
        tokens = net.input_emb(x)  # (B, H, D)
        if not self.config.condition_tokens:
            tokens = torch.cat([self._time_token(t, batch), tokens], dim=1)  # (B, 1+H, D)
        count = tokens.shape[1]
        tokens = tokens + net.pos_emb[:, :count]
        mask = None if net.mask is None else net.mask[None, None, :count, :count]
        if not self.config.condition_tokens:
            return net.head(net.ln_f(net.encoder(tokens, mask)[:, 1:]))
        memory_mask = None if net.memory_mask is None else net.memory_mask[None, None, :count]
        for layer, memory in zip(net.decoder.layers, self._memories(cache, t, batch), strict=True):
            tokens = layer(tokens, mask, memory, memory_mask)
        return net.head(net.ln_f(tokens))

    denoise = nn.Module.__call__

    def _paint(self, x: Tensor, observations: Tensor | None) -> Tensor:
        """Puts the known observations into their channels of the sample, where the checkpoint has such channels."""
        if self.config.condition_dim is not None or observations is None:
            return x
        known = self.config.observation_steps
        x = x.clone()
        x[:, :known, self.config.action_dim :] = observations[:, :known]
        return x

    def sample(
        self,
        cache: DiffusionTransformerCache,
        noise: Tensor,
        step_noise: Tensor | None = None,
        guide: Guide | None = None,
        generator: torch.Generator | None = None,
        **changes: Any,
    ) -> Tensor:
        """Returns a normalised sample (B, H, channels) from standard normal noise of that shape.

        Args:
            step_noise: draws of 'ddpm', (draws, B, H, channels); None draws them from ``generator``.
            guide: of the channels of the actions.
            changes: fields of the configuration to override, e.g. ``steps=10``.

        Raises:
            PolicyError: unknown sampler.
        """
        c = replace(self.config, **changes)
        if c.sampler not in SAMPLERS:
            raise PolicyError(one_of("Sampler", c.sampler, SAMPLERS))
        options = {"step_noise": step_noise, "generator": generator} if c.sampler == "ddpm" else {}

        def denoiser(x: Tensor, t: int) -> Tensor:
            # A sampler works element by element, so painting what the network sees is painting the sample.
            x = self._paint(x, cache.observations)

            def network(actions: Tensor, t: int) -> tuple[Tensor, Tensor]:
                output = self(cache, torch.cat([actions, x[..., c.action_dim :]], dim=-1), t)
                return output[..., : c.action_dim], output[..., c.action_dim :]

            return torch.cat(guided_actions(network, guide)(x[..., : c.action_dim], t), dim=-1)

        sample = SAMPLERS[c.sampler](denoiser, noise, c.grid(), c.schedule, c.prediction, c.clip, **options)
        return self._paint(sample, cache.observations)

    def loss(self, cache: DiffusionTransformerCache, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Returns the squared error, averaged; painted elements count as zero.

        Args:
            clean: (B, H, channels) normalised sample; noise likewise.
            t: (B,) diffusion steps.
        """
        noisy = self._paint(diffused(clean, noise, t, self.config.schedule), cache.observations)
        target = diffusion_target(clean, noise, t, self.config.schedule, self.config.prediction)
        error = (self(cache, noisy, t) - target).square()
        return self._paint(error, None if cache.observations is None else torch.zeros_like(cache.observations)).mean()
