"""Runs the reference cases of GR00T N1.5 and N1.6."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dit_policy_ros.policy.families.gr00t_n15 import Gr00tN15
from dit_policy_ros.policy.families.gr00t_n16 import Gr00tN16
from dit_policy_ros.policy.gr00t import Gr00tCache
from dit_policy_ros.policy.references.choose import choose, option
from dit_policy_ros.policy.references.directory import Reference
from dit_policy_ros.policy.references.recording import Recording

Case = Mapping[str, Any]
Arrays = Mapping[str, Tensor]
Outputs = dict[str, Tensor]
Network = Gr00tN15 | Gr00tN16


def settings(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the official settings that say the same as a ``reference.json``."""
    config = reference["config"]
    dit_keys = ("num_attention_heads", "attention_head_dim", "interleave_self_attention")
    head_keys = (
        "action_horizon",
        "num_inference_timesteps",
        "num_timestep_buckets",
        "use_alternate_vl_dit",
        "attend_text_every_n_blocks",
    )
    head = {key: config[key] for key in head_keys if key in config}
    head["diffusion_model_cfg"] = {key: config[key] for key in dit_keys if key in config}
    head["vl_self_attention_cfg"] = config.get("vl_self_attention", {})
    return head


def run(network: Network, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    """Returns the outputs of one case.

    Raises:
        KeyError: the case is unknown, or lacks an input.
    """
    return choose(CASES, case)(network, case, inputs, reference)


def _state(network: Network, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    return {"state_features": network.state_encoder(inputs["state"], inputs["embodiment_id"])}


def _actions(network: Network, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    t = inputs["timesteps"]
    tokens = network.action_encoder(inputs["noisy_actions"], t, inputs["embodiment_id"])
    return {"action_features": tokens, "sinusoid": network.action_encoder.code(t)}


def _time(network: Network, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    encoder = network.model.timestep_encoder
    return {"frequencies": encoder.frequencies(inputs["timesteps"]), "embedding": encoder(inputs["timesteps"])}


def _features(network: Network, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    normalized = network.vlln(inputs["vl_features"])
    if isinstance(network, Gr00tN16):
        return {"normalized": normalized}
    return {"normalized": normalized, "features": network.vl_self_attention(normalized)}


def _decode(network: Network, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    return {"decoded": network.action_decoder(inputs["tokens"], inputs["embodiment_id"])}


def _transformer(network: Network, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    model = network.model
    if isinstance(network, Gr00tN16) and "image_mask" in inputs:
        mask_of = network.mask_of(inputs.get("vl_mask"), inputs["image_mask"])
    else:
        mask_of = dict.fromkeys(range(len(model.crosses))).get
    blocks = {f"block_{i}": block for i, block in enumerate(model.transformer_blocks)}
    with Recording(**blocks) as recording:
        tokens = model(inputs["tokens"], inputs["timesteps"], model.encode(inputs["vl_features"], mask_of))
    return {"tokens_out": tokens, "block_outputs": torch.stack([recording.outputs(name)[0] for name in blocks])}


def _encode(network: Network, inputs: Arrays) -> Gr00tCache:
    if isinstance(network, Gr00tN16):
        return network.encode(inputs["vl_features"], inputs.get("vl_mask"), inputs.get("image_mask"))
    return network.encode(inputs["vl_features"])


def _denoise(network: Network, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    fast = (inputs["noisy_actions"], inputs["timesteps"], inputs["state"], inputs["embodiment_id"])
    with Recording(model=network.model) as recording:
        velocity = network.denoise(_encode(network, inputs), *fast)
    return {"velocity": velocity, "token_sequence": recording.arguments("model", 0)[0]}


def _sample(network: Network, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    fast = (inputs["noise"], inputs["state"], inputs["embodiment_id"], option(case, "steps"))
    with Recording(network=network) as recording:
        actions = network.sample(_encode(network, inputs), *fast)
    return {
        "actions": actions,
        "intermediate_samples": torch.stack([*recording.arguments("network", 1), actions]),
        "velocities": torch.stack(recording.outputs("network")),
        "timesteps": torch.cat(recording.arguments("network", 2)),
    }


def _loss(network: Network, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    cache, mask = _encode(network, inputs), inputs["action_mask"]
    training = (inputs["actions"], inputs["noise"], inputs["times"])
    fast = [inputs["state"], inputs["embodiment_id"]]
    if "state_dropped" in inputs:
        fast.append(inputs["state_dropped"])
    with Recording(network=network) as recording:
        errors = network.squared_errors(cache, *training, *fast)
    velocity = recording.outputs("network")[0]
    return {
        "loss": network.loss(errors, mask),
        "noisy_actions": recording.arguments("network", 1)[0],
        "timesteps": recording.arguments("network", 2)[0],
        "velocity": velocity,
        "action_loss": errors * mask,
    }


CASES = {
    "encode_state": _state,
    "encode_actions": _actions,
    "encode_time": _time,
    "encode_vision_language": _features,
    "decode": _decode,
    "transformer": _transformer,
    "denoise": _denoise,
    "sample": _sample,
    "loss": _loss,
}
