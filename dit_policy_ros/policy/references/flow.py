"""Cases that the reference directories of H-RDT and RDT2-FM have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dit_policy_ros.policy.flow_matching import FlowMatching
from dit_policy_ros.policy.layers import sinusoid
from dit_policy_ros.policy.references.choose import option
from dit_policy_ros.policy.references.recording import Recording

Case = Mapping[str, Any]
Arrays = Mapping[str, Tensor]
Outputs = dict[str, Tensor]


def embedded_times(network: FlowMatching, inputs: Arrays) -> Outputs:
    """The embedding of flow times."""
    return {"sinusoid": sinusoid(inputs["t"]), "timestep": network.model.t_embedder(inputs["t"])}


def sampled(network: FlowMatching, cache: Any, case: Case, inputs: Arrays) -> Outputs:
    """A sampling run with every step."""
    steps = option(case, "steps", "num_inference_timesteps")
    with Recording(network=network) as recording:
        action = network.sample(cache, inputs["initial_noise"], inputs["state_tokens"], steps)
    return {
        "sampling_times": torch.cat(recording.arguments("network", 2)),
        "step_velocity": torch.stack(recording.outputs("network")),
        "step_sample": torch.stack(recording.states("network", 1, action)),
        "action": action,
    }


def trained(network: FlowMatching, cache: Any, inputs: Arrays) -> Outputs:
    """The training loss."""
    fast = (inputs["action_gt"], inputs["noise"], inputs["timesteps"], inputs["state_tokens"])
    with Recording(network=network) as recording:
        loss = network.loss(cache, *fast)
    return {"loss": loss, "pred": recording.outputs("network")[0]}
