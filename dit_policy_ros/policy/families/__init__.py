"""The published architectures, one file each, and the loading of their checkpoints.

A family is a module with ``PREFIXES`` (what its parameter names may begin with, in order of preference),
``detect(shapes)``, ``configure(settings, shapes)`` and ``build(config)``; where its files hold more than the network,
or under other names, also ``rename(name)``: the name here, or None for what is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.families import (
    cogact,
    diffusion_policy_transformer,
    gr00t_n15,
    gr00t_n16,
    h_rdt,
    lerobot_multi_task_dit,
    mdt,
    mdtv,
    mode,
    pad,
    rdt,
    rdt2_fm,
    uwm,
)
from dit_policy_ros.policy.weights import Shapes, load_strict, read_json, read_shapes, read_tensors

FAMILIES: dict[str, ModuleType] = {
    "rdt": rdt,
    "h_rdt": h_rdt,
    "rdt2_fm": rdt2_fm,
    "cogact": cogact,
    "gr00t_n16": gr00t_n16,
    "gr00t_n15": gr00t_n15,
    "lerobot_multi_task_dit": lerobot_multi_task_dit,
    "diffusion_policy_transformer": diffusion_policy_transformer,
    "mode": mode,
    "uwm": uwm,
    "mdt": mdt,
    "mdtv": mdtv,
    "pad": pad,
}


def identify(shapes: Shapes, where: object = "The checkpoint", expected: str | None = None) -> tuple[str, str]:
    """Returns the family whose parameters these are, and the prefix their names begin with.

    Args:
        expected: the family to ask first; legacy parameters may remind of another.

    Raises:
        CheckpointError: no family knows them.
    """
    for name in sorted(FAMILIES, key=lambda name: name != expected):
        for prefix in FAMILIES[name].PREFIXES:
            if FAMILIES[name].detect(without_prefix(shapes, prefix)):
                return name, prefix
    some = ", ".join(sorted(shapes)[:4]) or "none"
    raise CheckpointError(
        f"{where} is of no known family; its parameters are {some}, ... Known: {', '.join(sorted(FAMILIES))}."
    )


def without_prefix(shapes: Shapes, prefix: str) -> Shapes:
    """Returns the entries whose names begin with a prefix, which is cut off."""
    return {name[len(prefix) :]: shape for name, shape in shapes.items() if name.startswith(prefix)}


def load_network(
    path: Path,
    family: str | None = None,
    dtype: torch.dtype | None = None,
    settings: Mapping[str, Any] | None = None,
    ignore_unexpected: bool = False,
    where: object = None,
) -> nn.Module:
    """Loads an official checkpoint, in evaluation mode on the CPU.

    Args:
        path: a directory with safetensors and, where the release has one, ``config.json``; or a safetensors file.
        family: the family it must be of; None takes what its parameter names say.
        dtype: of the floating-point parameters; None keeps that of the file.
        settings: used instead of ``config.json``.
        ignore_unexpected: drop parameters that the network does not have, such as the legacy ones of old releases.
        where: what errors call it; None takes the path.

    Raises:
        CheckpointError: no weights, damaged, of another family, or parameters are unexpected, missing or misshapen.
    """
    path = Path(path)
    where = path if where is None else where
    shapes = read_shapes(path)
    found, prefix = identify(shapes, where, family)
    if family is not None and found != family:
        raise CheckpointError(f"{where} is of the family '{found}', but '{family}' was asked for; give the other path.")
    if settings is None:
        config = (path if path.is_dir() else path.parent) / "config.json"
        settings = read_json(config) if config.is_file() else {}
    rename = getattr(FAMILIES[found], "rename", None)
    own = without_prefix(shapes, prefix)
    if rename is not None:
        own = {rename(name): shape for name, shape in own.items() if rename(name) is not None}
    network = network_like(found, settings, own, where)
    tensors = read_tensors(path, prefix, dtype, rename)
    if ignore_unexpected:
        tensors = {name: value for name, value in tensors.items() if name in network.state_dict()}
    load_strict(network, tensors, where)
    return network.eval().requires_grad_(False)


def network_like(family: str, settings: Mapping[str, Any], shapes: Shapes, where: object) -> nn.Module:
    """Returns the network of a family for these shapes, without values (on the meta device).

    Raises:
        CheckpointError: a parameter that tells the size of the network is missing or has too few axes.
    """
    module = FAMILIES[family]
    try:
        config = module.configure(settings, shapes)
        with torch.device("meta"):
            return module.build(config)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as problem:
        raise CheckpointError(
            f"{where} looks like '{family}' but its size cannot be read; missing or misshapen: {problem}."
        ) from problem
