"""Directories that hold a policy: ``policy.yaml`` and ``model.safetensors``. No pickle.

``policy.yaml`` names the kind; ``KINDS`` maps it to a loader.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from dit_policy_ros.errors import CheckpointError, one_of
from dit_policy_ros.policy.cameras import parse_view
from dit_policy_ros.policy.continuity.methods import continued
from dit_policy_ros.policy.device import CPU, find_device
from dit_policy_ros.policy.dual_policy import DualPolicy, DualPolicyConfig, Range
from dit_policy_ros.policy.dual_system import DualSystem, DualSystemConfig
from dit_policy_ros.policy.family_directory import load_family_policy
from dit_policy_ros.policy.two_streams import TwoStreams
from dit_policy_ros.policy.weights import load_strict, read_tensors, weight_files
from dit_policy_ros.resources import share_directory
from dit_policy_ros.strict_yaml import fields_of, load_yaml_mapping
from dit_policy_ros.types import Policy

POLICY_FILE = "policy.yaml"
WEIGHTS_FILE = "model.safetensors"


def load_policy(path: str | Path, continuity: str = "", device: str = CPU) -> Policy:
    """Loads a policy directory.

    Args:
        path: the directory, or the bare name of one shipped in ``models``.
        continuity: how its chunks are joined, see ``continuity.methods``; '' leaves it to ``policy.yaml``.
        device: where its networks run: 'cpu', 'cuda' or 'cuda:1'.

    Raises:
        CheckpointError: it is missing, foreign, or its weights do not fit.
        PolicyError: the continuity method is unknown, or not for this policy.
        ConfigError: there is no such device.
    """
    place = find_device(device)
    directory = find_policy(path)
    data = load_yaml_mapping(directory / POLICY_FILE, CheckpointError)
    kind, own = data.pop("kind", None), data.pop("continuity", "")
    if kind not in KINDS:
        raise CheckpointError(f"{directory / POLICY_FILE}: " + one_of("Kind", kind, KINDS))
    policy = KINDS[kind](directory, data, place)
    return continued(policy if place.type == CPU else TwoStreams(policy, place), continuity or own)


def find_policy(path: str | Path) -> Path:
    """Returns a policy directory given as a path or as a shipped name.

    Raises:
        CheckpointError: there is none; the text lists the shipped ones.
    """
    candidates = [Path(path), share_directory() / "models" / Path(path)]
    for candidate in candidates:
        if (candidate / POLICY_FILE).exists():
            return candidate
    shipped = ", ".join(sorted(file.parent.name for file in (share_directory() / "models").glob(f"*/{POLICY_FILE}")))
    raise CheckpointError(
        f"No policy at '{path}': a policy is a directory with {POLICY_FILE} and {WEIGHTS_FILE}. "
        f"Shipped: {shipped or 'none'}. Train one with: python -m dit_policy_ros train --help."
    )


def weights_sha256(directory: Path) -> str:
    """Returns the SHA-256 of a policy's weights, one file after the other, as hexadecimal digits."""
    digest = hashlib.sha256()
    for file in sorted(weight_files(_weights(directory))):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _weights(directory: Path) -> Path:
    """A family's checkpoint may lie elsewhere."""
    return directory / load_yaml_mapping(directory / POLICY_FILE, CheckpointError).get("checkpoint", ".")


def save_dual_policy(directory: Path, config: DualPolicyConfig, network: DualSystem, notes: Mapping[str, Any]) -> None:
    """Writes a policy directory; ``notes`` says how it was made."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().float().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, directory / WEIGHTS_FILE)
    data = {
        "kind": "dual_system",
        "joint_names": list(config.joint_names),
        "slow_camera": _plain(config.slow_camera),
        "fast_cameras": [_plain(camera) for camera in config.fast_cameras],
        "states": _plain(config.states),
        "actions": _plain(config.actions),
        "network": asdict(config.network),
        "step_ns": config.step_ns,
        "solver_steps": config.solver_steps,
        "noise_scale": config.noise_scale,
        "mirrored": config.mirrored,
        "notes": dict(notes),
    }
    (directory / POLICY_FILE).write_text(yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120))


def _load_dual_policy(directory: Path, data: dict[str, Any], device: torch.device) -> DualPolicy:
    config = parse_dual_policy(data, str(directory / POLICY_FILE))
    network = DualSystem(config.network)
    load_strict(network, read_tensors(directory), directory)
    return DualPolicy(config, network.to(device))


def parse_dual_policy(data: Mapping[str, Any], where: str) -> DualPolicyConfig:
    """Reads the configuration that ``save_dual_policy`` wrote.

    Raises:
        CheckpointError: an entry is missing, unknown or malformed.
    """
    names = [field.name for field in fields(DualPolicyConfig)]
    values = dict(fields_of(data, where, CheckpointError, names, ("notes",)))
    values.pop("notes", None)
    framed = ("frame_width", "frame_keypoints")
    sizes = [field.name for field in fields(DualSystemConfig) if field.name not in framed]
    try:
        values["joint_names"] = tuple(values["joint_names"])
        values["slow_camera"] = parse_view(values["slow_camera"], f"{where}: slow_camera", CheckpointError)
        fast = [parse_view(camera, f"{where}: fast_cameras", CheckpointError) for camera in values["fast_cameras"]]
        values["fast_cameras"] = tuple(fast)
        values["states"] = Range(**{key: np.array(value, dtype=float) for key, value in values["states"].items()})
        values["actions"] = Range(**{key: np.array(value, dtype=float) for key, value in values["actions"].items()})
    except (TypeError, ValueError, AttributeError) as problem:
        raise CheckpointError(f"{where} is malformed: {problem}. Restore it from the checkpoint's origin.") from problem
    values["network"] = DualSystemConfig(
        **fields_of(values["network"], f"{where}: network", CheckpointError, sizes, framed)
    )
    widths = values["network"].frame_width, values["slow_camera"].frame_width
    if widths[0] != widths[1]:
        raise CheckpointError(f"{where}: the network takes {widths[0]} columns of frame, the camera gives {widths[1]}.")
    return DualPolicyConfig(**values)


def _plain(value: Any) -> Any:
    """A dataclass as what YAML can hold."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


KINDS: Mapping[str, Callable[[Path, dict[str, Any], torch.device], Policy]] = {
    "dual_system": _load_dual_policy,
    "family": load_family_policy,
}
