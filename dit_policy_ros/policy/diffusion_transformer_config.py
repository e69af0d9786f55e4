"""The configuration of Diffusion Policy's transformer: its wiring is told by the names of the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dit_policy_ros.policy.samplers.prediction import prediction_named
from dit_policy_ros.policy.schedules import NoiseSchedule, leading, named
from dit_policy_ros.policy.shaped import axes, checked_heads, count
from dit_policy_ros.policy.weights import Shapes

NORMALIZER = "normalizer.params_dict."


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
    """'epsilon' (the noise), 'sample' (the clean actions) or 'v'."""
    clip: float | None = 1.0
    sampler: str = "ddpm"
    steps: int | None = None
    """Sampling steps; None is as many as in training."""

    @property
    def schedule(self) -> NoiseSchedule:
        """Corruption of training."""
        return named(self.beta_schedule, self.train_steps, *self.betas)

    def grid(self, steps: int | None = None) -> tuple[int, ...]:
        """Returns the diffusion steps of sampling."""
        return leading(self.train_steps, steps or self.steps or self.train_steps)


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
        prediction=prediction_named(settings.get("prediction_type", "epsilon")),
        clip=settings.get("clip_sample_range", 1.0) if settings.get("clip_sample", True) else None,
        steps=settings.get("num_inference_steps"),
    )
