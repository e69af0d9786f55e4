"""Configuration of CogACT's action model, from the official ``vla`` settings and the parameter shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dit_policy_ros.errors import CheckpointError, one_of
from dit_policy_ros.policy.weights import Shapes, count_layers

HEADS_BY_TYPE = {"DiT-S": 4, "DiT-B": 12, "DiT-L": 16}
NOISE_SCHEDULES = ("squaredcos_cap_v2", "linear")
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
    noise_schedule: str = "squaredcos_cap_v2"
    """Of the official ``ActionModel``; or 'linear'."""


def configure(settings: Mapping[str, Any], shapes: Shapes) -> CogActConfig:
    """Returns the configuration from the official ``vla`` settings (may be empty) and the parameter shapes.

    Raises:
        CheckpointError: the number of heads, which shapes do not tell, or the noise schedule is unknown.
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
    schedule = settings.get("noise_schedule", NOISE_SCHEDULES[0])
    if schedule not in NOISE_SCHEDULES:
        raise CheckpointError(one_of("CogACT's 'noise_schedule' in config.json", schedule, NOISE_SCHEDULES))
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
        noise_schedule=schedule,
    )
