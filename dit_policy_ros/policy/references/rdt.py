"""Runs the reference cases of RDT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dit_policy_ros.policy.families.rdt import Rdt
from dit_policy_ros.policy.layers import sinusoid
from dit_policy_ros.policy.positions import concatenated_sincos, sincos_1d
from dit_policy_ros.policy.references.choose import choose, option
from dit_policy_ros.policy.references.directory import Reference
from dit_policy_ros.policy.references.recording import Recording
from dit_policy_ros.policy.samplers.prediction import clean_and_noise, signal_and_noise

Case = Mapping[str, Any]
Arrays = Mapping[str, Tensor]
Outputs = dict[str, Tensor]


def settings(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the official ``config.json`` that says the same as a ``reference.json``."""
    schedule = reference["schedule"]
    scheduler = {key: schedule[key] for key in ("num_train_timesteps", "beta_schedule", "prediction_type")}
    scheduler["prediction_type"] = scheduler["prediction_type"].split()[0]
    scheduler["num_inference_timesteps"] = schedule["inference"]["num_inference_timesteps"]
    norm = reference["config"]["norm"]["type"]
    return {"config": {"noise_scheduler": scheduler}, "mean_square_norm": "mean" in norm or "rms" in norm}


def run(network: Rdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    """Returns the outputs of one case.

    Raises:
        KeyError: the case is unknown, or lacks an input.
    """
    return choose(CASES, case)(network, case, inputs, reference)


def _norm(network: Rdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    block = network.model.blocks[0]
    return {"y": block.norm1(inputs["x"]), "y_head": block.attn.q_norm(inputs["x_head"])}


def _positions(network: Rdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    c = network.config
    shipped = reference.data["config"]
    sequence = [("timestep", 1), ("ctrl_freq", 1), ("state", 1), ("action", c.horizon)]
    outputs = {
        "x_pos_embed": concatenated_sincos(sequence, c.hidden, True),
        "lang_cond_pos_embed": concatenated_sincos(
            shipped.get("lang_pos_embed_config") or [("lang", c.max_lang_tokens)], c.hidden, False
        ),
        "img_cond_pos_embed": concatenated_sincos(
            shipped.get("img_pos_embed_config") or [("image", c.img_tokens)], c.hidden, False
        ),
    }
    for number, variant in enumerate(case.get("variants", [])):
        outputs[f"variant_{number}"] = concatenated_sincos(
            variant["mm_cond_lens"], variant["embed_dim"], variant["embed_modality"]
        )
    if "sincos_1d" in case:
        table = case["sincos_1d"]
        outputs["sincos_1d"] = sincos_1d(table["embed_dim"], torch.arange(table["positions"]))
    return outputs


def _times(network: Rdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    t = inputs["t"]
    model = network.model
    return {"sinusoid": sinusoid(t), "timestep": model.t_embedder(t), "control_frequency": model.freq_embedder(t)}


def _adapters(network: Rdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    state = torch.cat([inputs["state_tokens"], inputs["action_mask"]], dim=-1)
    return {
        "lang": network.lang_adaptor(inputs["lang_tokens"]),
        "img": network.img_adaptor(inputs["img_tokens"]),
        "state": network.state_adaptor(state),
    }


def _fast(inputs: Arrays) -> tuple[Tensor, Tensor, Tensor]:
    return inputs["state_tokens"], inputs["action_mask"], inputs["ctrl_freqs"]


def _denoise(network: Rdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    model = network.model
    watched: dict[str, nn.Module] = {f"block_{i}": block for i, block in enumerate(model.blocks)}
    with Recording(model=model, final_layer=model.final_layer, **watched) as recording:
        cache = network.encode(inputs["lang_tokens"], inputs["img_tokens"], inputs.get("lang_attn_mask"))
        prediction = network.denoise(cache, inputs["noisy_action"], inputs["timesteps"], *_fast(inputs))
    lang, img = network.conditions(inputs["lang_tokens"], inputs["img_tokens"])
    return {
        "pred": prediction,
        "tokens": recording.arguments("model", 0)[0],
        "lang_condition": lang,
        "img_condition": img,
        **{name: recording.outputs(name)[0] for name in watched},
        "final_all_tokens": recording.outputs("final_layer")[0],
    }


def _sample(network: Rdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    aloha = case.get("aloha")
    outputs: Outputs = {}
    if aloha:
        indices = aloha["indices_14_to_unified"]
        state, mask = _to_unified(inputs["qpos"], aloha, network.config.action_dim)
        inputs = {**inputs, "state_tokens": state, "action_mask": mask[:, None]}
        outputs |= {"unified_state": state, "unified_mask": mask}
    cache = network.encode(inputs["lang_tokens"], inputs["img_tokens"], inputs.get("lang_attn_mask"))
    steps = option(case, "steps", "num_inference_timesteps")
    with Recording(network=network) as recording:
        action = network.sample(cache, inputs["initial_noise"], *_fast(inputs), steps=steps)
    outputs["step_model_output"] = torch.stack(recording.outputs("network"))
    samples, timesteps = recording.arguments("network", 1), recording.arguments("network", 2)
    outputs["sampling_timesteps"] = torch.cat(timesteps)
    levels = signal_and_noise(network.schedule.alpha_bar(timesteps[-1].item()))
    # The last step goes to the clean prediction; the mask comes after it.
    prediction = recording.outputs("network")[-1]
    last, _ = clean_and_noise(prediction, samples[-1], *levels, network.config.prediction)
    outputs["step_sample"] = torch.stack([*samples[1:], last])
    outputs["action"] = action
    if aloha:
        outputs["command"] = action[..., indices] * torch.tensor(aloha["action_multiplier"])
    return outputs


def _to_unified(qpos: Tensor, aloha: Mapping[str, Any], width: int) -> tuple[Tensor, Tensor]:
    indices = aloha["indices_14_to_unified"]
    state = torch.zeros(*qpos.shape[:-1], width)
    state[..., indices] = qpos / torch.tensor(aloha["state_divisor"])
    mask = torch.zeros(len(qpos), width)
    mask[:, indices] = 1
    return state, mask


def _unified(network: Rdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    aloha = case["aloha"]
    state, mask = _to_unified(inputs["qpos"], aloha, inputs["unified_action"].shape[-1])
    command = inputs["unified_action"][..., aloha["indices_14_to_unified"]] * torch.tensor(aloha["action_multiplier"])
    return {"unified_state": state, "unified_mask": mask, "command": command}


def _loss(network: Rdt, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    cache = network.encode(inputs["lang_tokens"], inputs["img_tokens"], inputs.get("lang_attn_mask"))
    with Recording(network=network) as recording:
        loss = network.loss(cache, inputs["action_gt"], inputs["noise"], inputs["timesteps"], *_fast(inputs))
    return {
        "loss": loss,
        "pred": recording.outputs("network")[0],
        "noisy_action": recording.arguments("network", 1)[0],
    }


CASES = {
    "rms_norm": _norm,
    "position_embedding": _positions,
    "timestep_embedding": _times,
    "adapters": _adapters,
    "denoise": _denoise,
    "sample": _sample,
    "unified_space": _unified,
    "loss": _loss,
}
