"""Configuration of LeRobot's multi-task DiT, from the policy's ``config.json`` and the parameter shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dit_policy_ros.policy.samplers.prediction import prediction_named
from dit_policy_ros.policy.schedules import NoiseSchedule, leading, named
from dit_policy_ros.policy.shaped import checked_heads, count
from dit_policy_ros.policy.weights import Shapes


@dataclass(frozen=True)
class MultiTaskDitConfig:
    """Sizes from the parameters; heads, horizon and objective from the policy's ``config.json``."""

    hidden: int
    depth: int
    heads: int
    mlp_hidden: int
    time_width: int
    condition_width: int
    action_dim: int
    horizon: int
    text_widths: tuple[int, int] | None
    """Input and output of the text projection; None where the policy has none."""
    rotary_base: float | None
    """None where attention is not rotary."""
    absolute_positions: bool
    objective: str = "diffusion"
    sampler: str | None = None
    """'ddpm' or 'ddim', 'euler' or 'rk4'; None takes the objective's first."""
    steps: int | None = None
    """Sampling steps; None is as many as in training, and 100 for flow matching."""
    train_steps: int = 100
    beta_schedule: str = "squaredcos_cap_v2"
    betas: tuple[float, float] = (1e-4, 0.02)
    """First and last variance of the schedules that take them."""
    prediction: str = "epsilon"
    """'epsilon' (the noise), 'sample' (the clean actions) or 'v'."""
    clip: float | None = 1.0
    sigma_min: float = 0.0

    @property
    def schedule(self) -> NoiseSchedule:
        """Corruption of the diffusion objective."""
        return named(self.beta_schedule, self.train_steps, *self.betas)

    def grid(self, steps: int | None = None) -> tuple[int, ...]:
        """Returns the diffusion steps of sampling."""
        return leading(self.train_steps, steps or self.steps or self.train_steps)


def configure(settings: Mapping[str, Any], shapes: Shapes) -> MultiTaskDitConfig:
    """Returns the configuration from the official ``config.json`` and the parameter shapes."""
    block = "noise_predictor.transformer_blocks.0."
    hidden, action_dim = shapes["noise_predictor.input_proj.weight"]
    time_width = shapes["noise_predictor.time_mlp.1.weight"][1]
    positions = shapes.get("noise_predictor.pos_embedding")
    if positions is None and settings.get("use_positional_encoding", False):
        raise KeyError("noise_predictor.pos_embedding")
    projection = shapes.get("observation_encoder.text_encoder.projection.weight")
    flow = settings.get("objective", "diffusion") != "diffusion"
    return MultiTaskDitConfig(
        hidden=hidden,
        depth=count(shapes, "noise_predictor.transformer_blocks."),
        heads=checked_heads(settings["num_heads"], hidden),
        mlp_hidden=shapes[block + "mlp.0.weight"][0],
        time_width=time_width,
        condition_width=shapes[block + "adaLN_modulation.1.weight"][1] - time_width,
        action_dim=action_dim,
        horizon=positions[1] if positions else settings["horizon"],
        text_widths=(projection[1], projection[0]) if projection else None,
        rotary_base=settings.get("rope_base", 10_000.0) if block + "attn.qkv_proj.weight" in shapes else None,
        absolute_positions=positions is not None,
        objective=settings.get("objective", "diffusion"),
        sampler=settings.get("integration_method" if flow else "noise_scheduler_type", "").lower() or None,
        steps=settings.get("num_integration_steps" if flow else "num_inference_steps"),
        train_steps=settings.get("num_train_timesteps", 100),
        beta_schedule=settings.get("beta_schedule", "squaredcos_cap_v2"),
        betas=(settings.get("beta_start", 1e-4), settings.get("beta_end", 0.02)),
        prediction=prediction_named(settings.get("prediction_type", "epsilon")),
        clip=settings.get("clip_sample_range", 1.0) if settings.get("clip_sample", True) else None,
        sigma_min=settings.get("sigma_min", 0.0),
    )
