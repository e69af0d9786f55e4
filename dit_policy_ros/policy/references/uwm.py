"""Runs the reference cases of UWM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dit_policy_ros.policy.families.uwm import MODES, Uwm
from dit_policy_ros.policy.references.choose import option
from dit_policy_ros.policy.references.directory import Reference
from dit_policy_ros.policy.references.recording import Recording
from dit_policy_ros.policy.schedules import leading

Case = Mapping[str, Any]
Arrays = Mapping[str, Tensor]
Outputs = dict[str, Tensor]


def settings(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the official settings that say the same as a ``reference.json``."""
    return dict(reference["config"])


def run(network: Uwm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    """Returns the outputs of one case.

    Raises:
        KeyError: the case is unknown, or lacks an input.
    """
    kind = case["kind"]
    if kind == "encode":
        known = [ENCODERS[name] for name in case["outputs"] if name in ENCODERS]
        if not known:
            raise KeyError(case["outputs"][0])
        return known[0](network, case, inputs, reference)
    return CASES[kind](network, case, inputs, reference)


def _denoise(network: Uwm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    cache = network.encode(inputs["cond"])
    arrays = (inputs[name] for name in ("noisy_action", "action_t", "noisy_next_obs", "next_obs_t"))
    action, next_obs = network(cache, *arrays)
    return {"action_noise": action, "next_obs_noise": next_obs}


def _sample(network: Uwm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    c, mode = network.config, _mode(case)
    steps = option(case, "steps", "num_inference_steps")
    cache = network.encode(inputs["cond"])
    given = [inputs[noise] if noise in inputs else inputs[name] for noise, name in ORDER]
    with Recording(network=network) as recording:
        actions, next_obs = network.sample(cache, *given, mode=mode, steps=steps)
    return {
        "timesteps": torch.tensor(leading(c.train_steps, steps or c.steps)),
        "actions": actions,
        "next_obs": next_obs,
        "action_steps": torch.stack(recording.states("network", 1, actions)),
        "next_obs_steps": torch.stack(recording.states("network", 3, next_obs)),
    }


def _mode(case: Case) -> str:
    """Tells the mode by the case's name, or by what is given and asked for."""
    named = [mode for mode in MODES if mode in case["name"]]
    if named:
        return named[0]
    given, asked = set(case["inputs"]), set(case["outputs"])
    if "actions" in given:
        return "forward_dynamics"
    if "next_obs" in given:
        return "inverse_dynamics"
    if {"actions", "next_obs"} <= asked:
        return "joint"
    return "policy" if "actions" in asked else "marginal_next_obs"


ORDER = (("action_noise_init", "actions"), ("next_obs_noise_init", "next_obs"))
"""Where noise and clean values are, for actions and next observations."""


def _loss(network: Uwm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    noises = inputs["action_noise"], inputs["next_obs_noise"]
    steps = inputs["action_t"], inputs["next_obs_t"]
    cache = network.encode(inputs["cond"])
    loss = network.loss(cache, inputs["actions"], inputs["next_obs"], noises, steps, inputs.get("action_mask"))
    return {
        "loss": loss.action + loss.dynamics,
        "action_loss": loss.action,
        "dynamics_loss": loss.dynamics,
        "effective_action_t": loss.action_step,
        "noisy_action": loss.noisy_action,
        "noisy_next_obs": loss.noisy_next_obs,
        "predicted_action_noise": loss.predicted_action,
        "predicted_next_obs_noise": loss.predicted_next_obs,
    }


def _schedule(network: Uwm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    return {"alphas_cumprod": torch.tensor(network.schedule.alphas_cumprod)}


def _timesteps(network: Uwm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    return {"embedding": network.time_features(inputs["action_t"], inputs["next_obs_t"])}


def _patchify(network: Uwm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    return {"tokens": network.noise_pred_net.obs_patchifier.encode(inputs["next_obs"])}


def _unpatchify(network: Uwm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    shape = torch.Size([len(inputs["tokens"]), *reference.data["config"]["latent_image_shape"]])
    return {"next_obs": network.noise_pred_net.obs_patchifier.decode(inputs["tokens"], shape)}


def _latents(network: Uwm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    latents = network.obs_encoder.scale_latents(inputs["vae_latents"])
    return {"latents": latents, "vae_decoder_input": network.obs_encoder.unscale_latents(latents)}


def _observations(network: Uwm, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    described = reference.data["config"]["shape_meta"]["obs"]
    names = sorted(name for name in described if f"obs_{name}" in inputs)
    images, vectors = (
        [inputs[f"obs_{name}"] for name in names if described[name].get("type", "rgb") == kind]
        for kind in ("rgb", "low_dim")
    )
    views = torch.stack([network.obs_encoder.transform(image) for image in images], dim=1)
    known = {id(array) for array in (*images, *vectors)}
    text = [array for array in inputs.values() if id(array) not in known]
    low_dim = torch.cat(vectors, dim=-1) if vectors else None
    return {"transformed_images": views, "features": network.obs_encoder(views, low_dim, text[0] if text else None)}


CASES = {
    "denoise": _denoise,
    "sample": _sample,
    "loss": _loss,
    "schedule": _schedule,
}
ENCODERS = {
    "embedding": _timesteps,
    "tokens": _patchify,
    "next_obs": _unpatchify,
    "latents": _latents,
    "features": _observations,
}
"""What computes an output of the cases of kind 'encode'."""
KINDS = ("encode",)
