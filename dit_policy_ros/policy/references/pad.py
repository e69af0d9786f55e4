"""Runs the reference cases of PAD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dit_policy_ros.policy.families.pad import Pad, PadCache
from dit_policy_ros.policy.modalities import PadSample
from dit_policy_ros.policy.references.choose import option
from dit_policy_ros.policy.references.directory import Reference
from dit_policy_ros.policy.references.recording import Recording
from dit_policy_ros.policy.schedules import linspace
from dit_policy_ros.policy.variational import Chain

Case = Mapping[str, Any]
Arrays = Mapping[str, Tensor]
Outputs = dict[str, Tensor]

PARTS = ("latent", "action", "depth")


def settings(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the official arguments that say the same as a ``reference.json``."""
    return dict(reference["config"])


def run(network: Pad, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    """Returns the outputs of one case.

    Raises:
        KeyError: the case is unknown, or lacks an input.
    """
    return CASES[case["kind"]](network, case, inputs, reference)


def _cache(network: Pad, inputs: Arrays) -> PadCache:
    return network.encode(*(inputs.get(name) for name in ("text", "cond_latent", "cond_pose", "cond_depth")))


def _sample_of(inputs: Arrays, pattern: str) -> PadSample:
    return PadSample(*(inputs.get(pattern.format(part)) for part in PARTS))


def _denoise(network: Pad, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    output = network(_cache(network, inputs), _sample_of(inputs, "noisy_{}"), inputs["t"])
    return {f"{part}_output": values for part, values in zip(PARTS, output, strict=True) if values is not None}


def _sample(network: Pad, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    steps = option(case, "steps", "inference_steps", default=network.config.steps)
    noise = _sample_of(inputs, "{}_init")
    draws = [inputs[f"{part}_step_noise"].flatten(2) for part in PARTS if f"{part}_step_noise" in inputs]
    with Recording(network=network) as recording:
        last = network.sample(_cache(network, inputs), noise, torch.cat(draws, dim=-1), steps)
    states = recording.states("network", 1, last)
    outputs = {"timestep_map": torch.tensor(linspace(network.config.train_steps, steps)[::-1])}
    for i, part in enumerate(PARTS):
        if last[i] is not None:
            outputs[part] = last[i]
            outputs[f"{part}_steps"] = torch.stack([state[i] for state in states])
    return outputs


def _loss(network: Pad, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    arrays = _sample_of(inputs, "{}"), _sample_of(inputs, "{}_noise"), inputs["t"]
    losses = network.loss(_cache(network, inputs), *arrays)
    outputs: Outputs = {}
    names = (("", "loss"), ("action_", "loss_a"), ("depth_", "loss_depth"))
    present = [pair for pair, clean in zip(names, arrays[0], strict=True) if clean is not None]
    for (prefix, name), loss in zip(present, losses, strict=True):
        outputs |= {f"{prefix}mse": loss.error, f"{prefix}vb": loss.bound, name: loss.error + loss.bound}
    share = reference.data["config"].get("action_loss_lambda", 1.0)
    means = {name: outputs[name].mean() for _, name in names if name in outputs}
    outputs["total"] = sum(share * mean if name == "loss_a" else mean for name, mean in means.items())
    return outputs


def _schedule(network: Pad, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    kept = linspace(network.config.train_steps, network.config.steps)[::-1]
    chain = Chain.respaced(network.schedule, kept)
    return {
        "timestep_map": torch.tensor(kept),
        "betas": chain.betas,
        "alphas_cumprod": chain.alphas_cumprod,
        "posterior_log_variance_clipped": chain.posterior_log_variance,
        "log_betas": chain.betas.log(),
        "posterior_mean_coef1": chain.posterior_of_clean,
        "posterior_mean_coef2": chain.posterior_of_noisy,
    }


def _encode(network: Pad, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    return {"embedding": network.t_embedder(inputs["t"]) if "t" in inputs else network.text(inputs["text"])}


CASES = {
    "denoise": _denoise,
    "sample": _sample,
    "loss": _loss,
    "schedule": _schedule,
    "encode": _encode,
}
