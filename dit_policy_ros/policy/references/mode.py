"""Runs the reference cases of MoDE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dit_policy_ros.policy.families.mode import MoDe
from dit_policy_ros.policy.preconditioning import batch_scalings
from dit_policy_ros.policy.references.directory import Reference
from dit_policy_ros.policy.references.mdt import levels_of
from dit_policy_ros.policy.references.recording import Recording
from dit_policy_ros.policy.schedules import exponential_sigmas

Case = Mapping[str, Any]
Arrays = Mapping[str, Tensor]
Outputs = dict[str, Tensor]


def settings(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the official settings that say the same as a ``reference.json``."""
    return dict(reference["config"])


def run(network: MoDe, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    """Returns the outputs of one case.

    Raises:
        KeyError: the case is unknown, or lacks an input.
    """
    return CASES[case["kind"]](network, case, inputs, reference.data["config"])


def _denoise(network: MoDe, case: Case, inputs: Arrays, config: Mapping[str, Any]) -> Outputs:
    goal = torch.zeros_like(inputs["goal"]) if "uncond" in case["name"] else inputs["goal"]
    cache = network.encode(inputs["state_images"], goal)
    with Recording(out=network.net.out) as recording:
        denoised = network(cache, inputs["x"], inputs["sigma"])
    return {"denoised": denoised, "network_output": recording.outputs("out")[0]}


def _scalings(network: MoDe, case: Case, inputs: Arrays, config: Mapping[str, Any]) -> Outputs:
    scalings = batch_scalings(inputs["sigma"], network.config.sigma_data)
    return {"c_skip": scalings.skip, "c_out": scalings.out, "c_in": scalings.into}


def _encode(network: MoDe, case: Case, inputs: Arrays, config: Mapping[str, Any]) -> Outputs:
    if "sigma" in inputs:
        return {"sigma_token": network.noise_token(inputs["sigma"])}
    images = [inputs[name].flatten(0, 1) for name in case["inputs"] if name.startswith("rgb_")]
    return {"state_images": network.encode_images(images, inputs["goal"].flatten(0, 1))}


def _routing(network: MoDe, case: Case, inputs: Arrays, config: Mapping[str, Any]) -> Outputs:
    goal = None
    if network.config.goal_in_routing:
        goal = network.net.goal_emb(inputs["goal"]).mean(1, keepdim=True)  # (B, 1, D)
    batch = 1 if goal is None else len(goal)
    levels = [network.routings(network.condition(sigma.expand(batch), goal)) for sigma in inputs["sigma"]]

    def gathered(field: str) -> Tensor:
        """(levels, layers, B, experts)."""
        return torch.stack([torch.stack([getattr(layer, field)[:, 0] for layer in level]) for level in levels])

    return {
        "logits_minus_max": gathered("logits"),
        "probabilities": gathered("probabilities"),
        "mixing_weights": gathered("weights"),
        "top_indices": gathered("indices"),
    }


def _cached_denoise(network: MoDe, case: Case, inputs: Arrays, config: Mapping[str, Any]) -> Outputs:
    sigmas = network.sigmas()[:-1]
    cache = network.encode(inputs["state_images"], inputs["goal"], sigmas)
    x = inputs["x_unit"]
    return {
        "sigmas": torch.tensor(sigmas),
        "denoised_uncached": torch.cat([network(cache, sigma * x, sigma) for sigma in sigmas]),
        "denoised_cached": torch.cat([network(cache, sigma * x, sigma, i) for i, sigma in enumerate(sigmas)]),
    }


def _sample(network: MoDe, case: Case, inputs: Arrays, config: Mapping[str, Any]) -> Outputs:
    sigmas = exponential_sigmas(*levels_of(case, network.config))
    cache = network.encode(inputs["state_images"], inputs["goal"], sigmas if "cached" in case["name"] else ())
    with Recording(network=network) as recording:
        actions = network.sample(cache, inputs["noise"], sigmas=sigmas)
    return {
        "sigmas": torch.tensor(sigmas),
        "x_steps": torch.stack([*recording.arguments("network", 1), actions]),
        "denoised_steps": torch.stack(recording.outputs("network")),
        "actions": actions,
    }


def _loss(network: MoDe, case: Case, inputs: Arrays, config: Mapping[str, Any]) -> Outputs:
    cache = network.encode(inputs["state_images"], inputs["goal"])
    arrays = (inputs[name] for name in ("actions", "noise", "sigma"))
    loss = network.loss(cache, *arrays, drawn=inputs.get("expert_indices"))
    return {
        "loss": loss.error,
        "network_output": loss.output,
        "load_balancing_per_layer": loss.load_balancing,
        "load_balancing": loss.load_balancing.mean(),
        "router_z": loss.router_z,
        "total": loss.total(config.get("entropy_gamma", 0.01), config.get("router_z_delta", 0.001)),
    }


CASES = {
    "denoise": _denoise,
    "schedule": _scalings,
    "encode": _encode,
    "routing": _routing,
    "cached_denoise": _cached_denoise,
    "sample": _sample,
    "loss": _loss,
    "loss_train": _loss,
}
