"""Configuration of MDT and MDT-V, from the official settings and the parameter shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.layers import adapter_widths
from dit_policy_ros.policy.shaped import checked_heads, count
from dit_policy_ros.policy.weights import Shapes

NET = "model.inner_model."
STORED_FREQUENCIES = ".rotary_pos_emb.freqs"


@dataclass(frozen=True)
class MdtConfig:
    """Sizes from the parameters, and what the official configuration adds to them."""

    width: int
    encoder_depth: int
    decoder_depth: int
    mlp_hidden: int
    bias: bool
    """Of norms, output projections and feed-forwards; other layers always have one."""
    goal_widths: tuple[int, ...]
    """Of a goal embedding: one linear, or two with GELU between."""
    out_widths: tuple[int, ...]
    """Of the action head, likewise."""
    proprio_widths: tuple[int, ...] | None
    observation_width: int
    action_dim: int
    positions: int | None
    """Rows of the stored table; None where there is none."""
    shapes: Shapes
    """All parameters, for the encoders and training heads beside the denoiser."""
    heads: int
    noise: str
    """How the decoder learns the noise level: 'adaptive' norms, 'added' to every layer, or from the 'context'."""
    rotary: bool
    goal_tokens: int
    positioned: bool = True
    """Whether the table is added to the tokens; without, it may be stored all the same."""
    perceiver_heads: int = 8
    paint_heads: int = 8
    mask_ratio: float = 0.75
    sigma_data: float = 0.5
    sigma_min: float = 0.001
    sigma_max: float = 80.0
    steps: int = 10
    horizon: int = 10


def configure(settings: Mapping[str, Any], shapes: Shapes) -> MdtConfig:
    """Returns the configuration from the official settings (may be empty) and the parameter shapes.

    Raises:
        CheckpointError: an option that is not known.
    """
    inner, paint = settings.get("inner_model", settings), settings.get("foresight", {})
    net = {name[len(NET) :]: shape for name, shape in shapes.items() if name.startswith(NET)}
    if inner.get("rotary_xpos", False):
        raise CheckpointError("MDT with rotary_xpos = True is not known; only False is.")
    width = net["encoder.ln.weight"][0]
    out_widths, has_proprio = adapter_widths(net, "action_pred"), "proprio_emb.0.weight" in net
    stored, goal_tokens = any(name.endswith(STORED_FREQUENCIES) for name in net), inner.get("goal_seq_len", 1)
    positioned = inner.get("use_abs_pos_emb", True)
    positions = _positions(positioned, net) if "incam_embed.weight" in net else None
    adaptive = f"{NET}decoder.blocks.0.adaLN_zero.modulation.1.weight" in shapes
    added = inner.get("use_ada_conditioning", False) and inner.get("use_noise_encoder", False)
    return MdtConfig(
        width=width,
        encoder_depth=count(net, "encoder.blocks."),
        decoder_depth=count(net, "decoder.blocks."),
        mlp_hidden=net["encoder.blocks.0.mlp.c_fc.weight"][0],
        bias="encoder.ln.bias" in net,
        goal_widths=(*adapter_widths(net, "goal_emb")[:-1], width),
        out_widths=(width, *out_widths[1:]),
        proprio_widths=(*adapter_widths(net, "proprio_emb")[:-1], width) if has_proprio else None,
        observation_width=net["tok_emb.weight"][1],
        action_dim=out_widths[-1],
        positions=positions,
        shapes=shapes,
        heads=checked_heads(inner.get("n_heads", 8), width),
        noise="adaptive" if adaptive else "added" if added else "context",
        rotary=stored or inner.get("use_rot_embed", False),
        goal_tokens=goal_tokens,
        positioned=positioned,
        perceiver_heads=settings.get("perceiver", {}).get("heads", 8),
        paint_heads=paint.get("decoder_n_heads", 8),
        mask_ratio=paint.get("mask_ratio", 0.75),
        sigma_data=settings.get("sigma_data", 0.5),
        sigma_min=settings.get("sigma_min", 0.001),
        sigma_max=settings.get("sigma_max", 80.0),
        steps=settings.get("num_sampling_steps", 10),
        horizon=inner.get("action_seq_len", positions - goal_tokens if positions else 10),
    )


def _positions(positioned: bool, net: Shapes) -> int | None:
    return net["pos_emb"][1] if positioned or "pos_emb" in net else None
