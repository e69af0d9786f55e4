"""What the second stage of H-RDT takes over from the first."""

from __future__ import annotations

from torch import nn

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.weights import Shapes

NOT_INHERITED = ("st_adaptor", "act_adaptor", "action_encoder", "final_layer", "action_decoder")
"""A stage-1 parameter whose name contains one of these is not taken over into stage 2."""


def inherited(stage1: Shapes, network: nn.Module) -> tuple[str, ...]:
    """Returns the names that a stage-2 network takes over from a stage-1 checkpoint.

    Everything but the action encoder and decoder; unknown names are ignored, image positions only where they fit.

    Raises:
        CheckpointError: another parameter has another shape, such as ``x_pos_emb`` of another horizon.
    """
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    names = [name for name in stage1 if name in wanted and not any(part in name for part in NOT_INHERITED)]
    if stage1.get("model.img_pos_emb") != wanted["model.img_pos_emb"] and "model.img_pos_emb" in names:
        names.remove("model.img_pos_emb")
    wrong = [f"{name} {stage1[name]} instead of {wanted[name]}" for name in names if stage1[name] != wanted[name]]
    if wrong:
        raise CheckpointError(f"The stage-1 checkpoint does not fit: {', '.join(wrong)}; keep its horizon and lengths.")
    return tuple(sorted(names))
