"""Runs the reference cases of CogACT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.actions.ensemble import adaptive_weights
from dit_policy_ros.policy.families.cogact import CogAct
from dit_policy_ros.policy.layers import sinusoid
from dit_policy_ros.policy.references.choose import choose, option
from dit_policy_ros.policy.references.directory import Reference
from dit_policy_ros.policy.references.recording import Recording
from dit_policy_ros.policy.samplers.prediction import clean_and_noise, signal_and_noise

Case = Mapping[str, Any]
Arrays = Mapping[str, Tensor]
Outputs = dict[str, Tensor]

GRIPPER = 6
"""Channel that is binarised at 0.5."""


def settings(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the official settings that say the same as a ``reference.json``."""
    schedule = reference["schedule"]
    return {
        "num_heads": reference["config"]["num_heads"],
        "train_steps": schedule["train_steps"],
        "inference_steps": schedule["inference_steps"],
        "guidance_scale": schedule["classifier_free_guidance_scale"],
        "noise_schedule": schedule.get("beta_schedule", "squaredcos_cap_v2"),
    }


def run(network: CogAct, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    """Returns the outputs of one case.

    Raises:
        KeyError: the case is unknown, or lacks an input.
    """
    return choose(CASES, case)(network, case, inputs, reference)


def _denoise(network: CogAct, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    cache = network.encode(inputs["cognition_token"])
    prediction = network.denoise(cache, inputs["noisy_actions"], inputs["timesteps"])
    return {"predicted_noise": prediction}


def _guided(network: CogAct, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    cache = network.encode(inputs["cognition_token"])
    x, t = inputs["noisy_actions"], inputs["timesteps"]
    nothing = network.encode(inputs["cognition_token"], torch.ones(len(x), dtype=torch.bool))
    given, null = network.denoise(cache, x, t), network.denoise(nothing, x, t)
    scale = case["settings"]["cfg_scale"]
    # Officially the sampler leaves guidance out at scales up to 1, not the function that this case runs.
    guided = network.denoise(cache, x, t, scale) if scale > 1 else null + scale * (given - null)
    return {
        "predicted_noise": guided,
        "predicted_noise_conditional": given,
        "predicted_noise_unconditional": null,
    }


def _times(network: CogAct, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    t = inputs["timesteps"]
    return {"frequencies": sinusoid(t), "embedding": network.net.t_embedder(t)}


def _condition(network: CogAct, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    cache = network.encode(inputs["cognition_token"])
    if cache.null is None:
        return {"embedding": cache.condition}
    return {"embedding": cache.condition, "embedding_null": cache.null.expand_as(cache.condition)}


def _sampled(network: CogAct, case: Case, inputs: Arrays) -> Tensor:
    return network.sample(
        network.encode(inputs["cognition_token"]),
        inputs["noise"],
        option(case, "steps"),
        option(case, "cfg_scale"),
        step_noise=inputs.get("step_noise"),
        ancestral="step_noise" in inputs,
    )


def _sample(network: CogAct, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    with Recording(network=network) as recording:
        actions = _sampled(network, case, inputs)
    samples = recording.arguments("network", 1)
    timesteps = torch.cat(recording.arguments("network", 2))
    clean = [
        clean_and_noise(output, x, *signal_and_noise(network.schedule.alpha_bar(step)))[0]
        for output, x, step in zip(recording.outputs("network"), samples, timesteps.tolist(), strict=True)
    ]
    return {
        "actions": actions,
        "intermediate_samples": torch.stack([*samples, actions]),
        "intermediate_samples_every_10": torch.stack([*samples[10::10], actions]),
        "predicted_clean": torch.stack(clean),
        "timesteps": timesteps,
    }


def _loss(network: CogAct, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    cache = network.encode(inputs["cognition_token"], inputs.get("dropped"))
    with Recording(network=network) as recording:
        loss = network.loss(cache, inputs["actions"], inputs["noise"], inputs["timesteps"])
    return {
        "loss": loss,
        "noisy_actions": recording.arguments("network", 1)[0],
        "predicted_noise": recording.outputs("network")[0],
    }


def _predict(network: CogAct, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    statistics = reference.data["config"]["action_statistics"]
    samples = _sampled(network, case, inputs)
    low, high, mask = (np.array(statistics[key]) for key in ("q01", "q99", "mask"))
    actions, normalized = unnormalize(samples[0].double().numpy(), low, high, mask)
    return {
        "samples": samples,
        "actions": torch.from_numpy(actions),
        "normalized_actions": torch.from_numpy(normalized),
    }


def unnormalize(actions: np.ndarray, low: np.ndarray, high: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns (un-normalised, normalised) actions, (..., A): clipped, gripper 0 or 1, masked channels to q01..q99."""
    normalized = np.clip(actions, -1.0, 1.0)
    normalized[..., GRIPPER] = normalized[..., GRIPPER] >= 0.5
    return np.where(mask, 0.5 * (normalized + 1) * (high - low) + low, normalized), normalized


def _ensemble(network: CogAct, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    window, alpha = case["settings"]["pred_action_horizon"], case["settings"]["alpha"]
    chunks = (inputs["chunks"] if "chunks" in inputs else inputs["actions"]).double().numpy()
    actions = []
    for call in range(len(chunks)):
        kept = range(max(0, call - window + 1), call + 1)
        if chunks.ndim == 3:  # a chunk older than its length says nothing about the present
            now = np.stack([chunks[i][call - i] for i in kept if call - i < chunks.shape[1]])
        else:  # single actions are averaged without moving them in time
            now = chunks[kept.start : kept.stop]
        actions.append(adaptive_weights(now, alpha) @ now)
    return {"ensembled_actions": torch.from_numpy(np.stack(actions))}


CASES = {
    "time_embedding": _times,
    "condition_embedding": _condition,
    "denoise": _denoise,
    "denoise_guided": _guided,
    "sample": _sample,
    "sample_unnormalized": _predict,
    "loss": _loss,
    "ensemble": _ensemble,
}
