"""Runs the reference cases of MDT and MDT-V."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dit_policy_ros.policy.encoder_decoder import EncoderDecoder
from dit_policy_ros.policy.families.mdt import Mdt
from dit_policy_ros.policy.references.choose import choose, option
from dit_policy_ros.policy.references.directory import Reference
from dit_policy_ros.policy.references.recording import Recording
from dit_policy_ros.policy.schedules import exponential_sigmas

Case = Mapping[str, Any]
Arrays = Mapping[str, Tensor]
Outputs = dict[str, Tensor]


KNOWN = ("state_images", "goal", "image_goal", "x", "sigma", "noise", "actions")
"""Inputs of MDT-V's cases; what else there is, is proprioception."""


def settings(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the official settings that say the same as a ``reference.json``."""
    return dict(reference["config"])


def run(network: EncoderDecoder, case: Case, inputs: Arrays, reference: Reference) -> Outputs:
    """Returns the outputs of one case.

    Raises:
        KeyError: the case is unknown, or lacks an input.
    """
    return choose(CASES, case)(network, case, inputs)


def _tokens(network: EncoderDecoder, case: Case, inputs: Arrays, goal: Tensor, contrastive: bool = False) -> Tensor:
    """Embeds goal and observations, as acting does or as the separate pass of the contrastive loss does."""
    language = case.get("goal_modality", "language") == "language"
    if isinstance(network, Mdt):
        return network.tokens(inputs["static"], inputs["gripper"], goal, contrastive and language)
    proprio = next((inputs[name] for name in inputs if name not in KNOWN), None)
    if proprio is not None and proprio.dim() == 2:
        proprio = proprio[:, None]
    return network.tokens(inputs["state_images"], goal, language, proprio)


def levels_of(case: Case, config: Any) -> tuple[int, float, float]:
    """Returns the number of noise levels of a sampling case, the smallest and the largest."""
    return (
        option(case, "steps", "num_sampling_steps", default=config.steps),
        option(case, "sigma_min", default=config.sigma_min),
        option(case, "sigma_max", default=config.sigma_max),
    )


def _denoise(network: EncoderDecoder, case: Case, inputs: Arrays) -> Outputs:
    goal = torch.zeros_like(inputs["goal"]) if "uncond" in case["name"] else inputs["goal"]
    tokens = _tokens(network, case, inputs, goal)
    with Recording(head=network.net.action_pred) as recording:
        denoised = network(network.encode_tokens(tokens), inputs["x"], inputs["sigma"])
    return {
        "denoised": denoised,
        "network_output": recording.outputs("head")[0],
        "context": network.context(tokens, inputs["sigma"]),
    }


def _context(network: EncoderDecoder, case: Case, inputs: Arrays) -> Outputs:
    tokens = _tokens(network, case, inputs, inputs["goal"], contrastive=True)
    return {"context": network.context(tokens, inputs.get("sigma"))}


def _encode(network: EncoderDecoder, case: Case, inputs: Arrays) -> Outputs:
    if "sigma" in inputs:
        return {"sigma_token": network.noise_token(inputs["sigma"])}
    if "tokens" in inputs:
        return {"state_images": network.perceiver(inputs["tokens"])}
    if "context" in inputs:
        return {"pooled": network.pool(inputs["context"])}
    images = [inputs[f"rgb_{name}"] for name in ("static", "gripper")]  # (B, frames, 3, H, W)
    tokens = network.encode_images(*(image.flatten(0, 1) for image in images))
    static, gripper = (token.reshape(*images[0].shape[:2], -1) for token in tokens)
    return {"static": static, "gripper": gripper}


def _sample(network: EncoderDecoder, case: Case, inputs: Arrays) -> Outputs:
    sigmas = exponential_sigmas(*levels_of(case, network.config))
    with Recording(network=network) as recording:
        cache = network.encode_tokens(_tokens(network, case, inputs, inputs["goal"]))
        actions = network.sample(cache, inputs["noise"], sigmas=sigmas)
    return {
        "sigmas": torch.tensor(sigmas),
        "x_steps": torch.stack([*recording.arguments("network", 1), actions]),
        "denoised_steps": torch.stack(recording.outputs("network")),
        "actions": actions,
    }


def _loss(network: EncoderDecoder, case: Case, inputs: Arrays) -> Outputs:
    cache = network.encode_tokens(_tokens(network, case, inputs, inputs["goal"]))
    with Recording(head=network.net.action_pred) as recording:
        loss = network.loss(cache, inputs["actions"], inputs["noise"], inputs["sigma"])
    return {"loss": loss, "network_output": recording.outputs("head")[0]}


def _contrastive(network: EncoderDecoder, case: Case, inputs: Arrays) -> Outputs:
    language = network.context(_tokens(network, case, inputs, inputs["goal"]), inputs["sigma"])
    tokens = _tokens(network, case, inputs, inputs["image_goal"], contrastive=True)
    latents = network.pool(network.context(tokens, inputs["sigma"])), network.pool(language)
    return {
        "loss": sum(network.contrast(*latents)) / 2,
        "image_latent": latents[0],
        "language_latent": latents[1],
        "language_context": language,
    }


def _info_nce(network: EncoderDecoder, case: Case, inputs: Arrays) -> Outputs:
    by_image, by_language = network.contrast(inputs["image_latent"], inputs["language_latent"])
    return {"symmetric": (by_image + by_language) / 2, "img_to_text": by_image, "text_to_img": by_language}


def _foresight(network: EncoderDecoder, case: Case, inputs: Arrays) -> Outputs:
    painted = network.gen_img(inputs["context"], inputs["images"], inputs["mask_noise"])
    return {
        "reconstruction": painted.patches,
        "mask": painted.hidden,
        "restore_indices": painted.restore,
        "loss": network.gen_img.loss(painted, inputs["images"]),
    }


CASES = {
    "denoise": _denoise,
    "context": _context,
    "encode": _encode,
    "sample": _sample,
    "loss": _loss,
    "contrastive": _contrastive,
    "info_nce": _info_nce,
    "foresight": _foresight,
}
