"""Configuration of RDT, from the official ``config.json`` and the parameter shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dit_policy_ros.policy.layers import adapter_widths
from dit_policy_ros.policy.samplers.prediction import prediction_named
from dit_policy_ros.policy.weights import Shapes, count_layers

EXTRA_TOKENS = 3
"""Diffusion step, control frequency, state: what stands before the actions."""


@dataclass(frozen=True)
class RdtConfig:
    """What the official constructor takes; everything with a shape comes from the checkpoint's shapes."""

    hidden: int
    depth: int
    heads: int
    ffn_hidden: int
    horizon: int
    action_dim: int
    lang_widths: tuple[int, ...]
    """Widths of the language adapter, from the encoder's to the hidden one."""
    img_widths: tuple[int, ...]
    state_widths: tuple[int, ...]
    max_lang_tokens: int
    img_tokens: int
    train_steps: int = 1000
    steps: int = 5
    beta_schedule: str = "squaredcos_cap_v2"
    prediction: str = "sample"
    """'sample' (the clean actions), 'epsilon' (the noise) or 'v'."""
    mean_square_norm: bool = False
    """True for weights fine-tuned with timm >= 1.0.13, whose norm divides by the root mean square."""


def configure(settings: Mapping[str, Any], shapes: Shapes) -> RdtConfig:
    """Returns the configuration from the official ``config.json`` (may be empty) and the parameter shapes."""
    scheduler = settings.get("config", {}).get("noise_scheduler", {})
    rows, hidden = shapes["model.x_pos_embed"][1:]
    return RdtConfig(
        hidden=hidden,
        depth=count_layers(shapes, "model.blocks."),
        heads=hidden // shapes["model.blocks.0.attn.q_norm.weight"][0],
        ffn_hidden=shapes["model.blocks.0.ffn.fc1.weight"][0],
        horizon=rows - EXTRA_TOKENS,
        action_dim=shapes["model.final_layer.ffn_final.fc2.weight"][0],
        lang_widths=adapter_widths(shapes, "lang_adaptor"),
        img_widths=adapter_widths(shapes, "img_adaptor"),
        state_widths=adapter_widths(shapes, "state_adaptor"),
        max_lang_tokens=shapes["model.lang_cond_pos_embed"][1],
        img_tokens=shapes["model.img_cond_pos_embed"][1],
        train_steps=scheduler.get("num_train_timesteps", 1000),
        steps=scheduler.get("num_inference_timesteps", 5),
        beta_schedule=scheduler.get("beta_schedule", "squaredcos_cap_v2"),
        prediction=prediction_named(scheduler.get("prediction_type", "sample")),
        mean_square_norm=settings.get("mean_square_norm", False),
    )
