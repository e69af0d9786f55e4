"""Runs the reference cases of the Diffusion Policy transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dit_policy_ros.policy.families.diffusion_policy_transformer import DiffusionTransformer
from dit_policy_ros.policy.layers import sinusoid
from dit_policy_ros.policy.references.directory import Reference
from dit_policy_ros.policy.references.recording import Recording
from dit_policy_ros.policy.samplers.prediction import prediction_named

Case = Mapping[str, Any]
Arrays = Mapping[str, Tensor]
Outputs = dict[str, Tensor]


def settings(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the official policy settings that say the same as a ``reference.json``."""
    prediction = reference.get("schedule", {}).get("prediction_type", "epsilon").split()[0]
    return {"prediction_type": prediction, **reference["config"]}


def run(network: DiffusionTransformer, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    """Returns the outputs of one case.

    Raises:
        KeyError: the case is unknown, or lacks an input.
    """
    return CASES[case["kind"]](network, case, inputs)


def _denoise(network: DiffusionTransformer, case: Case, inputs: Arrays) -> Outputs:
    cache = network.encode(inputs.get("cond"))
    return {"prediction": network(cache, inputs["noisy_actions"], inputs["timesteps"])}


def _encode(network: DiffusionTransformer, case: Case, inputs: Arrays) -> Outputs:
    t, width = inputs["timesteps"], network.config.width
    outputs = {"sinusoid": sinusoid(t, width, divisor=width // 2 - 1, sines_first=True)}
    if "memory" in case["outputs"]:
        outputs["memory"] = network.memory(network.encode(inputs.get("cond")), t, len(t))
    return outputs


def _sample(network: DiffusionTransformer, case: Case, inputs: Arrays) -> Outputs:
    c, given = network.config, case.get("settings", {})
    changes = {"sampler": given.get("solver", c.sampler), "steps": given.get("steps")}
    if "prediction_type" in given:
        changes["prediction"] = prediction_named(given["prediction_type"])
    cache = network.encode(network.normalize("obs", inputs["obs"])[:, : c.observation_steps])
    with Recording(network=network) as recording:
        samples = network.sample(cache, inputs["noise"], inputs.get("step_noise"), **changes)
    states = [*recording.arguments("network", 1), samples]
    action = network.unnormalize("action", samples[..., : c.action_dim])
    outputs = {
        "samples": samples,
        "action_pred": action,
        "action": network.executed(action),
        "intermediate_samples": torch.stack(states),
        "intermediate_samples_every_10": torch.stack([*states[10:-1:10], samples]),
        "timesteps": torch.tensor(recording.arguments("network", 2)),
    }
    if c.input_dim > c.action_dim:
        outputs["obs_pred"] = network.unnormalize("obs", samples[..., c.action_dim :])
    return outputs


def _loss(network: DiffusionTransformer, case: Case, inputs: Arrays) -> Outputs:
    c = network.config
    observations, clean = network.normalize("obs", inputs["obs"]), network.normalize("action", inputs["action"])
    if c.condition_dim is None and c.input_dim > c.action_dim:
        clean = torch.cat([clean, observations], dim=-1)
    cache = network.encode(observations[:, : c.observation_steps])
    with Recording(network=network) as recording:
        loss = network.loss(cache, clean, inputs["noise"], inputs["timesteps"])
    return {
        "loss": loss,
        "noisy_actions": recording.arguments("network", 1)[0],
        "prediction": recording.outputs("network")[0],
    }


CASES = {"denoise": _denoise, "encode": _encode, "sample": _sample, "loss": _loss}
