"""Loads the System 2 encoders that a ``policy.yaml`` names; paths are relative to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.bindings.binding import Encoders, Language, Vision
from dit_policy_ros.policy.encoders.clip import ClipText, ClipVision
from dit_policy_ros.policy.encoders.language import LanguageFile, T5Encoder
from dit_policy_ros.policy.encoders.vision import LAST, PENULTIMATE, FusedTowers, VisionTower
from dit_policy_ros.policy.encoders.vlm import VisionLanguageModel
from dit_policy_ros.strict_yaml import fields_of


def load_encoders(directory: Path, data: Any, where: str) -> Encoders:
    """Loads 'language' (file, t5 or clip), 'vision' (siglip, dinov2 and siglip, or clip) or 'vision_language'.

    Raises:
        CheckpointError: an entry is unknown, or a model is missing or of another kind.
    """
    entries = fields_of(data, where, CheckpointError, (), ("language", "vision", "vision_language"))
    language = _language(directory, entries["language"], f"{where}.language") if "language" in entries else None
    vision = _vision(directory, entries["vision"], f"{where}.vision") if "vision" in entries else None
    if "vision_language" not in entries:
        return Encoders(language, vision)
    values = fields_of(
        entries["vision_language"], f"{where}.vision_language", CheckpointError, ("model",), ("layer", "suffix_ids")
    )
    model = VisionLanguageModel.from_directory(directory / values["model"], suffix_ids=values.get("suffix_ids", ()))
    return Encoders(language, vision, model, values.get("layer", -1))


def _language(directory: Path, data: Any, where: str) -> Language:
    values = _one_of(data, where, ("file", "t5", "clip"), ("max_tokens",))
    if "file" in values:
        return LanguageFile.load(directory / values["file"])
    if "clip" in values:
        return ClipText.from_directory(directory / values["clip"])
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
