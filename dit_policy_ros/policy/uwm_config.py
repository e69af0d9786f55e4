"""Configuration of UWM, from the official settings and the parameter shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dit_policy_ros.policy.encoders.world_frames import FramesConfig
from dit_policy_ros.policy.shaped import axes, checked_heads, count
from dit_policy_ros.policy.weights import Shapes

NET = "noise_pred_net."


@dataclass(frozen=True)
class UwmConfig:
    """Sizes from the parameters; heads, chunk length and schedule from the official configuration."""

    hidden: int
    depth: int
    heads: int
    mlp_hidden: int
    time_width: int
    condition_width: int
    action_dim: int
    action_hidden: int
    horizon: int
    channels: int
    patch: tuple[int, int, int]
    """Latent frames, rows and columns of a token."""
    registers: int | None
    """Learned tokens; None where the checkpoint stores none."""
    tokens: int
    qkv_bias: bool
    frames: FramesConfig
    train_steps: int = 100
    steps: int = 10
    beta_schedule: str = "squaredcos_cap_v2"
    clip: float | None = 1.0


def configure(settings: Mapping[str, Any], shapes: Shapes) -> UwmConfig:
    """Returns the configuration from the official settings (may be empty) and the parameter shapes.

    Raises:
        CheckpointError: the number of heads does not divide the width, or the image encoder is not a ResNet.
    """
    model = settings.get("model", settings)
    block = f"{NET}blocks.0."
    hidden, channels, *patch = axes(shapes, f"{NET}obs_patchifier.patch_encoder.weight", 5)
    if f"{NET}registers" not in shapes and model.get("num_registers", 0):
        raise KeyError(f"{NET}registers")
    time_width = shapes[f"{NET}timestep_embedding.proj.2.weight"][0]
    return UwmConfig(
        hidden=hidden,
        depth=count(shapes, f"{NET}blocks."),
        heads=checked_heads(model.get("num_heads", 12), hidden),
        mlp_hidden=shapes[block + "mlp.fc1.weight"][0],
        time_width=time_width,
        condition_width=shapes[block + "adaLN_modulation.1.weight"][1] - time_width,
        action_dim=shapes[f"{NET}action_encoder.0.weight"][1],
        action_hidden=shapes[f"{NET}action_encoder.0.weight"][0],
        horizon=model.get("action_len", 16),
        channels=channels,
        patch=tuple(patch),
        registers=shapes[f"{NET}registers"][1] if f"{NET}registers" in shapes else None,
        tokens=shapes[f"{NET}pos_embed"][1],
        qkv_bias=block + "attn.qkv.bias" in shapes,
        frames=FramesConfig.read(settings.get("obs_encoder", {}), shapes),
        train_steps=model.get("num_train_steps", 100),
        steps=model.get("num_inference_steps", 10),
        beta_schedule=model.get("beta_schedule", "squaredcos_cap_v2"),
        clip=1.0 if model.get("clip_sample", True) else None,
    )
