"""Runs the reference cases of H-RDT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dit_policy_ros.policy.families.h_rdt import HRdt, HRdtCache
from dit_policy_ros.policy.positions import summed_sincos
from dit_policy_ros.policy.references.choose import choose
from dit_policy_ros.policy.references.directory import Reference
from dit_policy_ros.policy.references.flow import embedded_times, sampled, trained
from dit_policy_ros.policy.references.recording import Recording
from dit_policy_ros.policy.stage_two import inherited
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
    # Without a configuration the tokens are counted plainly.
    tables = (
        ("x_pos_emb", "act", [("state", 1), ("action", c.horizon)]),
        ("lang_pos_emb", "lang", [("lang", c.max_lang_tokens)]),
        ("img_pos_emb", "img", [("image", c.max_img_tokens)]),
    )
    outputs = {
        name: summed_sincos(shipped.get(f"{key}_pos_emb_config") or plain, c.hidden) for name, key, plain in tables
    }
    for number, variant in enumerate(case.get("variants", [])):
        outputs[f"variant_{number}"] = summed_sincos(variant["mm_lens"], variant["embed_dim"])
    return outputs


def _times(network: HRdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    return embedded_times(network, inputs)


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
    return sampled(network, _encode(network, inputs), case, inputs)


def _loss(network: HRdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    return trained(network, _encode(network, inputs), inputs)


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
