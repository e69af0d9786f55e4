"""Configuration of PAD, from the official arguments and the parameter shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dit_policy_ros.policy.modalities import ACTION, EMBEDDERS, POSITIONS, Part
from dit_policy_ros.policy.shaped import axes, checked_heads, count
from dit_policy_ros.policy.weights import Shapes


@dataclass(frozen=True)
class PadConfig:
    """Sizes from the parameters, and what the official arguments add to them."""

    hidden: int
    depth: int
    heads: int
    mlp_hidden: int
    time_width: int
    text_width: int | None
    parts: tuple[Part, ...]
    """Image, action and, where the checkpoint has it, depth."""
    image_apart: bool = True
    """Whether image tokens attend to image tokens only."""
    train_steps: int = 1000
    betas: tuple[float, float] = (1e-4, 0.02)
    steps: int = 50


def configure(settings: Mapping[str, Any], shapes: Shapes) -> PadConfig:
    """Returns the configuration from the official arguments (may be empty) and the parameter shapes."""
    arguments = settings.get("args", settings)
    hidden, text = axes(shapes, "pos_embed", 3)[2], shapes.get("y_embedder.embedding_table.weight")
    time_width = shapes["t_embedder.mlp.0.weight"][1]
    if time_width % 2:
        raise ValueError(f"t_embedder.mlp.0.weight, which should take an even number of features, not {time_width}")
    parts = [_part(shapes, name) for name in EMBEDDERS if any(each.startswith(EMBEDDERS[name]) for each in shapes)]
    return PadConfig(
        hidden=hidden,
        depth=count(shapes, "blocks."),
        heads=checked_heads(settings.get("num_heads", 16), hidden),
        mlp_hidden=shapes["blocks.0.mlp.fc1.weight"][0],
        time_width=time_width,
        text_width=text[1] if text else None,
        parts=tuple(parts),
        image_apart=arguments.get("attn_mask", True),
        steps=settings.get("inference_steps", 50),
    )


def _part(shapes: Shapes, name: str) -> Part:
    flat = name == ACTION
    weight = shapes[f"{EMBEDDERS[name]}.weight"] if flat else axes(shapes, f"{EMBEDDERS[name]}.proj.weight", 4)
    side = 1 if flat else weight[2]
    outputs = shapes[f"final_layer.{name}linear.weight"][0]
    return Part(name, weight[1], outputs // (2 * side**2), side, axes(shapes, POSITIONS[name], 3)[1])
