"""Loads the System 2 encoders that a ``policy.yaml`` names; paths are relative to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dit_policy_ros.errors import CheckpointError, one_of
from dit_policy_ros.policy.bindings.binding import Encoders, Language, Vision
from dit_policy_ros.policy.device import HOST
from dit_policy_ros.policy.encoders.clip import ClipText, ClipVision
from dit_policy_ros.policy.encoders.language import LanguageFile, T5Encoder
from dit_policy_ros.policy.encoders.latents import STABLE_DIFFUSION, LatentEncoder
from dit_policy_ros.policy.encoders.pixels import PixelFormat
from dit_policy_ros.policy.encoders.vision import LAST, PENULTIMATE, FusedTowers, VisionTower
from dit_policy_ros.policy.encoders.vlm import VisionLanguageModel
from dit_policy_ros.strict_yaml import fields_of

COLOURS = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "signed": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and deviation of RGB values 0..1 that a checkpoint was trained with; 'signed' is -1..1."""
LATENT_STRIDE = 8


def load_encoders(directory: Path, data: Any, where: str, device: torch.device = HOST) -> Encoders:
    """Loads what an 'encoders' entry names.

    'language' is file, t5 or clip; 'vision' siglip, dinov2 and siglip, or clip; 'vision_language' a model; 'pixels'
    what the image encoders of the checkpoint itself take; 'latents' an autoencoder.

    Args:
        device: of their models.

    Raises:
        CheckpointError: an entry is unknown, or a model is missing or of another kind.
    """
    loaders = {
        "language": _language,
        "vision": _vision,
        "vision_language": _vision_language,
        "pixels": _pixels,
        "latents": _latents,
    }
    entries = fields_of(data, where, CheckpointError, (), tuple(loaders))
    loaded = {name: loaders[name](directory, value, f"{where}.{name}") for name, value in entries.items()}
    for encoder in loaded.values():
        _move(encoder, device)
    layer = entries.get("vision_language", {}).get("layer", -1)
    return Encoders(**loaded, layer=layer)


def _move(encoder: Any, device: torch.device) -> None:
    """Moves the models of an encoder; one without any gives what the networks move themselves."""
    for part in (encoder.dino, encoder.siglip) if isinstance(encoder, FusedTowers) else (encoder,):
        if hasattr(part, "model"):
            part.model.to(device)


def _vision_language(directory: Path, data: Any, where: str) -> VisionLanguageModel:
    values = fields_of(data, where, CheckpointError, ("model",), ("layer", "suffix_ids", "prompt_suffix"))
    return VisionLanguageModel.from_directory(
        directory / values["model"],
        suffix_ids=values.get("suffix_ids", ()),
        prompt_suffix=values.get("prompt_suffix", ""),
    )


def _pixels(directory: Path, data: Any, where: str) -> PixelFormat:
    values = fields_of(data, where, CheckpointError, ("size",), ("colours", "pad"))
    colours = values.get("colours", "clip")
    if colours not in COLOURS:
        raise CheckpointError(f"{where}: " + one_of("Colours", colours, COLOURS))
    return PixelFormat(_size(values["size"], where), *COLOURS[colours], pad=bool(values.get("pad", False)))


def _latents(directory: Path, data: Any, where: str) -> LatentEncoder:
    values = fields_of(data, where, CheckpointError, ("vae", "size"), ("scale",))
    size = _size(values["size"], where)
    if any(side % LATENT_STRIDE for side in size):
        raise CheckpointError(f"{where}: an image of {size} does not divide into latents of {LATENT_STRIDE} pixels.")
    return LatentEncoder.from_directory(directory / values["vae"], size, values.get("scale", STABLE_DIFFUSION))


def _size(value: Any, where: str) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(n, int) and n > 0 for n in value):
        raise CheckpointError(f"{where}: size is '{value}'; it must be [height, width] in pixels.")
    return tuple(value)


def _language(directory: Path, data: Any, where: str) -> Language:
    values = _one_of(data, where, ("file", "t5", "clip"), ("max_tokens", "projected"))
    if "file" in values:
        return LanguageFile.load(directory / values["file"])
    if "clip" in values:
        return ClipText.from_directory(directory / values["clip"], projected=bool(values.get("projected", False)))
    return T5Encoder.from_directory(directory / values["t5"], values.get("max_tokens", 1024))


def _vision(directory: Path, data: Any, where: str) -> Vision:
    values = fields_of(data, where, CheckpointError, (), ("siglip", "dinov2", "clip", "layer"))
    kinds = {name for name in values if name != "layer"}
    layer = values.get("layer", PENULTIMATE if "dinov2" in kinds else LAST)
    if kinds == {"clip"}:
        return ClipVision.from_directory(directory / values["clip"])
    if kinds not in ({"siglip"}, {"siglip", "dinov2"}) or layer not in (LAST, PENULTIMATE):
        raise CheckpointError(
            f"{where} must be siglip, dinov2 and siglip, or clip, each with a model directory; "
            f"layer is '{LAST}' or '{PENULTIMATE}'."
        )
    siglip = VisionTower.from_directory(directory / values["siglip"], layer)
    if "dinov2" not in kinds:
        return siglip
    return FusedTowers(VisionTower.from_directory(directory / values["dinov2"], layer), siglip)


def _one_of(data: Any, where: str, kinds: tuple[str, ...], optional: tuple[str, ...]) -> Mapping[str, Any]:
    values = fields_of(data, where, CheckpointError, (), (*kinds, *optional))
    if sum(kind in values for kind in kinds) != 1:
        raise CheckpointError(f"{where} must name exactly one of {', '.join(kinds)}.")
    return values
