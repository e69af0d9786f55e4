"""Runs the reference cases of LeRobot's multi-task DiT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dit_policy_ros.policy.families.lerobot_multi_task_dit import MultiTaskDit
from dit_policy_ros.policy.layers import sinusoid
from dit_policy_ros.policy.references.directory import Reference
from dit_policy_ros.policy.references.recording import Recording
from dit_policy_ros.policy.samplers.prediction import prediction_named

Case = Mapping[str, Any]
Arrays = Mapping[str, Tensor]
Outputs = dict[str, Tensor]

EVALUATIONS = {"euler": 1, "rk4": 4}
"""Network calls of one step."""


def settings(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the official ``config.json`` that says the same as a ``reference.json``."""
    return dict(reference["config"])


def run(network: MultiTaskDit, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    """Returns the outputs of one case.

    Raises:
        KeyError: the case is unknown, or lacks an input.
    """
    return CASES[case["kind"]](network, case, inputs)


def _denoise(network: MultiTaskDit, case: Case, inputs: Arrays) -> Outputs:
    cache = network.encode(inputs["conditioning"])
    t = inputs["timesteps"] if "timesteps" in inputs else inputs["times"]
    return {"prediction": network(cache, inputs["noisy_actions"], t)}


def _encode(network: MultiTaskDit, case: Case, inputs: Arrays) -> Outputs:
    outputs = {}
    width = network.config.time_width
    for name in ("timesteps", "times"):
        if name in inputs:
            outputs[f"sinusoid_of_{name}"] = sinusoid(inputs[name], width, divisor=width // 2 - 1, sines_first=True)
            outputs[f"features_of_{name}"] = network.time_features(inputs[name])
    if "state" in inputs:
        names = ("state", "camera_features", "text_features")
        outputs["conditioning"] = network.conditioning(*(inputs.get(name) for name in names))
    return outputs


def _changes(case: Case) -> dict[str, Any]:
    """Returns the fields of the configuration that the settings of a case override."""
    given = case.get("settings", {})
    flow = given.get("objective", "diffusion") != "diffusion"
    changes: dict[str, Any] = {"objective": "flow_matching" if flow else "diffusion", "sampler": None}
    for name, field in FIELDS[flow].items():
        if name in given:
            changes[field] = READ.get(field, lambda value: value)(given[name])
    if given.get("clip_sample") is False:
        changes["clip"] = None
    return changes


FIELDS = {
    False: {
        "noise_scheduler_type": "sampler",
        "num_inference_steps": "steps",
        "prediction_type": "prediction",
        "num_train_timesteps": "train_steps",
        "beta_schedule": "beta_schedule",
        "clip_sample_range": "clip",
    },
    True: {"integration_method": "sampler", "num_integration_steps": "steps", "sigma_min": "sigma_min"},
}
"""For each objective (False: diffusion), what LeRobot calls the fields of the configuration."""
READ = {"sampler": str.lower, "prediction": prediction_named}


def _sample(network: MultiTaskDit, case: Case, inputs: Arrays) -> Outputs:
    changes = _changes(case)
    cache = network.encode(inputs["conditioning"])
    with Recording(network=network) as recording:
        samples = network.sample(cache, inputs["noise"], inputs.get("step_noise"), **changes)
    stride = EVALUATIONS.get(changes.get("sampler"), 1)
    states = [*recording.arguments("network", 1)[::stride], samples]
    return {
        "samples": samples,
        "predictions": torch.stack(recording.outputs("network")),
        "intermediate_samples": torch.stack(states),
        "intermediate_samples_every_10": torch.stack([*states[10:-1:10], samples]),
        "evaluation_times": torch.tensor(recording.arguments("network", 2)),
    }


def _loss(network: MultiTaskDit, case: Case, inputs: Arrays) -> Outputs:
    t = inputs["timesteps"] if "timesteps" in inputs else inputs["times"]
    padding = inputs.get("action_is_pad") if case.get("settings", {}).get("mask_padding", True) else None
    before = network.config
    network.config = replace(before, **_changes(case))
    try:
        with Recording(network=network) as recording:
            loss = network.loss(network.encode(inputs["conditioning"]), inputs["actions"], inputs["noise"], t, padding)
    finally:
        network.config = before
    return {
        "loss": loss,
        "noisy_actions": recording.arguments("network", 1)[0],
        "prediction": recording.outputs("network")[0],
    }


CASES = {"denoise": _denoise, "encode": _encode, "sample": _sample, "loss": _loss}
