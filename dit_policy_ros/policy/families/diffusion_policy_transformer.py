"""The low-dimensional transformer of "Diffusion Policy: Visuomotor Policy Learning via Action Diffusion".

Same function as https://github.com/real-stanford/diffusion_policy, ``transformer_for_diffusion`` with its policy. Three
wirings, told apart by the parameter names: decoder over [time, observations]; decoder over [time] with the observations
painted into the sample; encoder alone with the time as first token.

With the per-token condition encoder, keys and values of the observation tokens do not depend on the diffusion step
and are cached; each step adds those of the time token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.corruption import diffused
from dit_policy_ros.policy.layers import KeysValues, sinusoid
from dit_policy_ros.policy.prenorm import PreNormStack
from dit_policy_ros.policy.samplers import ddim, ddpm
from dit_policy_ros.policy.schedules import NoiseSchedule, leading, named
from dit_policy_ros.policy.shaped import axes, checked_heads, count
from dit_policy_ros.policy.weights import Shapes

PREFIXES = ("", "state_dicts.ema_model.", "state_dicts.model.")

UNUSED = ("_dummy_variable", "mask_generator.", "model._dummy_variable", "obs_encoder.")
NORMALIZER = "normalizer.params_dict."
SAMPLERS = {"ddpm": ddpm, "ddim": ddim}


@dataclass(frozen=True)
class DiffusionTransformerConfig:
    """Sizes from the parameters; heads, observation steps and schedule from the official policy configuration."""

    width: int
    layers: int
    condition_layers: int
    """Layers of the condition encoder; 0 is an MLP."""
    heads: int
    feed_forward: int
    positions: int
    """Rows of the position table: the horizon, and one more where the time is the first token."""
    condition_tokens: int
    """Time and observations; 0 is the encoder alone."""
    input_dim: int
    """Channels of the sample: actions, then painted observations."""
    condition_dim: int | None
    """Width of an observation that is a condition token; None where it is painted into the sample."""
    causal: bool
    """Whether the checkpoint holds masks, one between actions and, where there are such tokens, one to observations."""
    normalized: tuple[tuple[str, int], ...]
    """Name and width of what the checkpoint's normaliser knows."""
    action_dim: int
    observation_steps: int
    action_steps: int
    train_steps: int = 100
    beta_schedule: str = "squaredcos_cap_v2"
    betas: tuple[float, float] = (1e-4, 0.02)
    prediction: str = "epsilon"
    """'epsilon' (the noise) or 'sample' (the clean actions)."""
    clip: float | None = 1.0
    sampler: str = "ddpm"
    steps: int | None = None
    """Sampling steps; None is as many as in training."""

    @property
    def schedule(self) -> NoiseSchedule:
        """Corruption of training."""
        return named(self.beta_schedule, self.train_steps, *self.betas)


def detect(shapes: Shapes) -> bool:
    """Returns whether these parameters are a Diffusion Policy transformer."""
    return all(f"model.{name}" in shapes for name in ("input_emb.weight", "pos_emb", "ln_f.weight", "head.weight"))


def rename(name: str) -> str | None:
    """Leaves out what the network does not use: placeholders, statistics, an image encoder."""
    return None if name.startswith(UNUSED) or ".input_stats." in name else name


def configure(settings: Mapping[str, Any], shapes: Shapes) -> DiffusionTransformerConfig:
    """Returns the configuration from the official policy settings and the parameter shapes."""
    decoder, encoder = count(shapes, "model.decoder.layers."), count(shapes, "model.encoder.layers.")
    stack = "model.decoder.layers.0." if decoder else "model.encoder.layers.0."
    observation = shapes.get("model.cond_obs_emb.weight")
    condition_tokens = shapes["model.cond_pos_emb"][1] if decoder else 0
    width, input_dim = axes(shapes, "model.input_emb.weight", 2)
    names = [name.removeprefix(NORMALIZER) for name in shapes if name.startswith(NORMALIZER)]
    scales = [name.removesuffix(".scale") for name in names if name.endswith(".scale")]
    normalized = {name: shapes[f"{NORMALIZER}{name}.scale"][0] for name in scales}
    causal = "model.mask" in shapes
    if settings.get("causal_attn", causal) and not causal:
        raise KeyError("model.mask")
    return DiffusionTransformerConfig(
        width=width,
        layers=decoder or encoder,
        condition_layers=encoder if decoder else 0,
        heads=checked_heads(settings.get("n_head", 4), width),
        feed_forward=shapes[stack + "linear1.weight"][0],
        positions=shapes["model.pos_emb"][1],
        condition_tokens=condition_tokens,
        input_dim=input_dim,
        condition_dim=normalized.get("obs", observation[1]) if observation else None,
        causal=causal,
        normalized=tuple(sorted(normalized.items())),
        action_dim=normalized.get("action", settings.get("action_dim", input_dim)),
        observation_steps=condition_tokens - 1 if observation else settings.get("n_obs_steps", 2),
        action_steps=settings.get("n_action_steps", 8),
        train_steps=settings.get("train_steps", 100),
        beta_schedule=settings.get("beta_schedule", "squaredcos_cap_v2"),
        betas=(settings.get("beta_start", 1e-4), settings.get("beta_end", 0.02)),
        prediction=settings.get("prediction_type", "epsilon"),
        clip=settings.get("clip_sample_range", 1.0) if settings.get("clip_sample", True) else None,
        steps=settings.get("num_inference_steps"),
    )


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


class Scaling(nn.Module):
    """``x * scale + offset`` per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.offset = nn.Parameter(torch.zeros(width))


class DiffusionTransformer(nn.Module):
    """The denoiser with the normaliser of its checkpoint."""

    def __init__(self, config: DiffusionTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Transformer(config)
        if config.normalized:
            scalings = nn.ModuleDict({name: Scaling(width) for name, width in config.normalized})
            self.normalizer = nn.ModuleDict({"params_dict": scalings})

    def normalize(self, name: str, x: Tensor) -> Tensor:
        """Maps raw 'obs' or 'action' (..., width) to the network's range."""
        scaling = self.normalizer["params_dict"][name]
        return x * scaling.scale + scaling.offset

    def unnormalize(self, name: str, x: Tensor) -> Tensor:
        """Inverse of ``normalize``."""
        scaling = self.normalizer["params_dict"][name]
        return (x - scaling.offset) / scaling.scale

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
        self, cache: DiffusionTransformerCache, noise: Tensor, step_noise: Tensor | None = None, **changes: Any
    ) -> Tensor:
        """Returns a normalised sample (B, H, channels) from standard normal noise of that shape.

        Args:
            step_noise: draws of 'ddpm', (draws, B, H, channels); None draws them.
            changes: fields of the configuration to override, e.g. ``steps=10``.

        Raises:
            PolicyError: unknown sampler.
        """
        c = replace(self.config, **changes)
        if c.sampler not in SAMPLERS:
            raise PolicyError(one_of("Sampler", c.sampler, SAMPLERS))
        options = {"step_noise": step_noise} if c.sampler == "ddpm" else {}
        grid = leading(c.train_steps, c.steps or c.train_steps)
        network = partial(self, cache)
        # A sampler works element by element, so painting what the network sees is painting the sample.
        sample = SAMPLERS[c.sampler](
            lambda x, t: network(self._paint(x, cache.observations), t),
            noise, grid, c.schedule, c.prediction, c.clip, **options,
        )  # fmt: skip
        return self._paint(sample, cache.observations)

    def loss(self, cache: DiffusionTransformerCache, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Returns the squared error, averaged; painted elements count as zero.

        Args:
            clean: (B, H, channels) normalised sample; noise likewise.
            t: (B,) diffusion steps.
        """
        noisy = self._paint(diffused(clean, noise, t, self.config.schedule), cache.observations)
        target = clean if self.config.prediction == "sample" else noise
        error = (self(cache, noisy, t) - target).square()
        return self._paint(error, None if cache.observations is None else torch.zeros_like(cache.observations)).mean()
