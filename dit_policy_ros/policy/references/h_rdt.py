"""Runs the reference cases of H-RDT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dit_policy_ros.policy.families.h_rdt import HRdt, HRdtCache, inherited
from dit_policy_ros.policy.layers import sinusoid
from dit_policy_ros.policy.positions import summed_sincos
from dit_policy_ros.policy.references.choose import choose
from dit_policy_ros.policy.references.directory import Reference
from dit_policy_ros.policy.references.recording import Recording
from dit_policy_ros.policy.weights import read_shapes

Case = Mapping[str, Any]
Arrays = Mapping[str, Tensor]
Outputs = dict[str, Tensor]


def settings(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the official settings that say the same as a ``reference.json``."""
    config = reference["config"]
    return {
        "hrdt": {"norm_eps": config["norm"]["eps"], "use_flash_attn": config.get("use_flash_attn", True)},
        "noise_scheduler": {
            "num_inference_timesteps": reference["schedule"]["inference"]["num_inference_timesteps"],
        },
    }


def run(network: HRdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    """Returns the outputs of one case.

    Raises:
        KeyError: the case is unknown, or lacks an input.
    """
    return choose(CASES, case)(network, case, inputs, reference)


def _positions(network: HRdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    c, shipped = network.config, reference.data["config"]
    outputs = {
        "x_pos_emb": summed_sincos(shipped["act_pos_emb_config"], c.hidden),
        "lang_pos_emb": summed_sincos(shipped["lang_pos_emb_config"], c.hidden),
        "img_pos_emb": summed_sincos(shipped["img_pos_emb_config"], c.hidden),
    }
    for number, variant in enumerate(case.get("variants", [])):
        outputs[f"variant_{number}"] = summed_sincos(variant["mm_lens"], variant["embed_dim"])
    return outputs


def _times(network: HRdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    return {"sinusoid": sinusoid(inputs["t"]), "timestep": network.model.t_embedder(inputs["t"])}


def _adapters(network: HRdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    return {
        "state": network.action_encoder["state_adaptor"](inputs["state_tokens"]),
        "action": network.action_encoder["action_adaptor"](inputs["noisy_action"]),
        "image": network.img_adapter(inputs["image_tokens"]),
        "lang": network.lang_adapter(inputs["lang_tokens"]),
    }


def _encode(network: HRdt, inputs: Arrays) -> HRdtCache:
    return network.encode(inputs["image_tokens"], inputs.get("lang_tokens"), inputs.get("lang_attn_mask"))


def _denoise(network: HRdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    model = network.model
    blocks = {f"block_{i}": block for i, block in enumerate(model.blocks)}
    with Recording(model=model, decoder=model.action_decoder, **blocks) as recording:
        prediction = network.denoise(
            _encode(network, inputs), inputs["noisy_action"], inputs["timesteps"], inputs["state_tokens"]
        )
    img, lang = network.conditions(inputs["image_tokens"], inputs.get("lang_tokens"))
    outputs = {
        "pred": prediction,
        "tokens": recording.arguments("model", 0)[0],
        "time_embedding": recording.arguments("model", 1)[0],
        "image_condition": img,
        **{name: recording.outputs(name)[0] for name in blocks},
        "decoder_all_tokens": recording.outputs("decoder")[0],
    }
    return outputs if lang is None else {**outputs, "lang_condition": lang}


def _sample(network: HRdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    steps = case.get("settings", {}).get("steps")
    with Recording(network=network) as recording:
        action = network.sample(_encode(network, inputs), inputs["initial_noise"], inputs["state_tokens"], steps)
    return {
        "sampling_times": torch.cat(recording.arguments("network", 2)),
        "step_velocity": torch.stack(recording.outputs("network")),
        "step_sample": torch.stack(recording.states("network", 1, action)),
        "action": action,
    }


def _loss(network: HRdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    fast = (inputs["action_gt"], inputs["noise"], inputs["timesteps"], inputs["state_tokens"])
    with Recording(network=network) as recording:
        loss = network.loss(_encode(network, inputs), *fast)
    return {"loss": loss, "pred": recording.outputs("network")[0]}


def _stage2(network: HRdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    stage1 = read_shapes(reference.directory / case["pretrained_weights"])
    names = inherited(stage1, network)
    return {"loaded": torch.tensor([name in names for name in sorted(stage1)])}


CASES = {
    "position_embedding": _positions,
    "timestep_embedding": _times,
    "adapters": _adapters,
    "denoise": _denoise,
    "sample": _sample,
    "loss": _loss,
    "checkpoint_transfer": _stage2,
}
