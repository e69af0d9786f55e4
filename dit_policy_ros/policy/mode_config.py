"""The configuration of MoDE, read from its official settings and the parameters of its published files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.layers import adapter_widths
from dit_policy_ros.policy.shaped import count
from dit_policy_ros.policy.weights import Shapes

NET = "model.inner_model."
CAMERAS = (
    "static_resnet",
    "img_encoder_image_primary",
    "img_encoder_image_secondary",
    "gripper_resnet",
    "img_encoder_image_wrist",
)
"""Names of image encoders in published files, in the order of their tokens."""


@dataclass(frozen=True)
class MoDeConfig:
    """Sizes from the parameters; the rest from the official configuration of ``inner_model``."""

    width: int
    depth: int
    head_width: int
    experts: int
    expert_hidden: int
    router_hidden: int
    goal_width: int
    goal_tokens: int
    observation_width: int
    action_dim: int
    horizon: int
    out_widths: tuple[int, ...]
    """Of the action head: one linear, or two with GELU between."""
    image_shapes: Shapes
    """Parameters of the FiLM ResNets."""
    top_k: int = 2
    noise_token: bool = True
    goal_in_routing: bool = False
    normalize_routing: bool = True
    sigma_data: float = 0.5
    sigma_min: float = 0.001
    sigma_max: float = 80.0
    steps: int = 10

    @property
    def cameras(self) -> tuple[str, ...]:
        """Image encoders of the checkpoint."""
        return tuple(name for name in CAMERAS if f"{name}.resnet.conv1.weight" in self.image_shapes)


def rename(name: str) -> str | None:
    """Restores what the upload code cut off, and leaves out CLIP and a projection that is never used."""
    if name.startswith("inner_") and not name.startswith("inner_model."):
        name = NET + name.removeprefix("inner_")
    if name.startswith("inner_model."):
        name = "model." + name
    foreign = "clip" in name or "visual" in name or name.startswith((f"{NET}gripper_embed.", "language_goal."))
    return None if foreign else name


def configure(settings: Mapping[str, Any], shapes: Shapes) -> MoDeConfig:
    """Returns the configuration from the official settings (may be empty) and the parameter shapes.

    Raises:
        CheckpointError: an option that is not known.
    """
    inner = settings.get("inner_model", settings)
    known = {"causal": True, "cond_router": True, "use_shared_expert": False, "use_proprio": False}
    for option, value in known.items():
        if inner.get(option, value) is not value:
            raise CheckpointError(f"MoDE with {option} = {inner[option]} is not known; only {value} is.")
    block, goal_tokens = f"{NET}blocks.0.", inner.get("goal_seq_len", 1)
    width, head_width = shapes[f"{NET}goal_emb.weight"][0], shapes[block + "attn.q_norm.g"][0]
    if width % head_width:
        raise ValueError(f"{block}attn.q_norm.g ({head_width},), which does not divide the width {width}")
    return MoDeConfig(
        width=width,
        depth=count(shapes, f"{NET}blocks."),
        head_width=head_width,
        experts=shapes[block + "router.router.mlp.3.weight"][0],
        expert_hidden=shapes[block + "experts.expert_0.mlp.2.weight"][1],
        router_hidden=shapes[block + "router.router.mlp.0.weight"][0],
        goal_width=shapes[f"{NET}goal_emb.weight"][1],
        goal_tokens=goal_tokens,
        observation_width=shapes[f"{NET}tok_emb.weight"][1],
        action_dim=adapter_widths(shapes, f"{NET}out")[-1],
        horizon=shapes[f"{NET}pos_emb"][1] - goal_tokens,
        out_widths=(width, *adapter_widths(shapes, f"{NET}out")[1:]),
        image_shapes={name: shape for name, shape in shapes.items() if name.startswith(CAMERAS)},
        top_k=inner.get("top_k", 2),
        noise_token=inner.get("use_noise_token_as_input", True),
        goal_in_routing=inner.get("use_goal_in_routing", False),
        normalize_routing=inner.get("router_normalize", True),
        sigma_data=settings.get("sigma_data", 0.5),
        sigma_min=settings.get("sigma_min", 0.001),
        sigma_max=settings.get("sigma_max", 80.0),
        steps=settings.get("num_sampling_steps", 10),
    )
