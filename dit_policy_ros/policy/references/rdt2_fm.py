"""Runs the reference cases of RDT2-FM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dit_policy_ros.policy.families.rdt2_fm import Rdt2Fm, Rdt2FmCache
from dit_policy_ros.policy.positions import summed_sincos
from dit_policy_ros.policy.references.choose import choose
from dit_policy_ros.policy.references.directory import Reference
from dit_policy_ros.policy.references.flow import embedded_times, sampled, trained
from dit_policy_ros.policy.references.recording import Recording

Case = Mapping[str, Any]
Arrays = Mapping[str, Tensor]
Outputs = dict[str, Tensor]


def settings(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the official settings that say the same as a ``reference.json``."""
    steps = reference["schedule"]["inference"]["num_inference_timesteps"]
    return {
        "rdt": {"norm_eps": reference["config"]["norm"]["eps"]},
        "noise_scheduler": {"num_inference_timesteps": steps},
    }


def run(network: Rdt2Fm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    """Returns the outputs of one case.

    Raises:
        KeyError: the case is unknown, or lacks an input.
    """
    return choose(CASES, case)(network, case, inputs, reference)


def _positions(network: Rdt2Fm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    c = network.config
    outputs = {
        "x_pos_emb": summed_sincos([("action", c.horizon), ("register", c.registers)], c.hidden),
        "state_pos_emb": summed_sincos([("state", 1)], c.hidden),
    }
    for number, variant in enumerate(case.get("variants", [])):
        outputs[f"variant_{number}"] = summed_sincos(variant["mm_lens"], variant["embed_dim"])
    return outputs


def _times(network: Rdt2Fm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    return embedded_times(network, inputs)


def _adapters(network: Rdt2Fm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    outputs = {
        "action": network.act_adaptor(inputs["noisy_action"]),
        "state": network.state_adaptor(inputs["state_tokens"]),
    }
    return {**outputs, "lang": network.lang_adaptor(inputs["lang_tokens"])} if "lang_tokens" in inputs else outputs


def _encode(network: Rdt2Fm, inputs: Arrays) -> Rdt2FmCache:
    if "kv_key" in inputs:
        return network.encode(inputs["kv_key"], inputs["kv_value"], inputs.get("lang_attn_mask"))
    return network.encode_tokens(inputs["lang_tokens"], inputs.get("lang_attn_mask"))


def _denoise(network: Rdt2Fm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    model = network.model
    blocks = {f"block_{i}": block for i, block in enumerate(model.blocks)}
    with Recording(model=model, final=model.final_layer, **blocks) as recording:
        prediction = network.denoise(
            _encode(network, inputs), inputs["noisy_action"], inputs["timesteps"], inputs["state_tokens"]
        )
    return {
        "pred": prediction,
        "tokens": recording.arguments("model", 0)[0],
        "adaln_input": recording.arguments("model", 1)[0],
        **{name: recording.outputs(name)[0] for name in blocks},
        "final_all_tokens": recording.outputs("final")[0],
    }


def _sample(network: Rdt2Fm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    return sampled(network, _encode(network, inputs), case, inputs)


def _loss(network: Rdt2Fm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    return trained(network, _encode(network, inputs), inputs)


def _normalizer(network: Rdt2Fm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    x, scale, offset = inputs["x"], inputs["scale"], inputs["offset"]
    return {"normalized": x * scale + offset, "unnormalized": (x - offset) / scale}


CASES = {
    "position_embedding": _positions,
    "timestep_embedding": _times,
    "adapters": _adapters,
    "normalizer": _normalizer,
    "denoise": _denoise,
    "sample": _sample,
    "loss": _loss,
}
