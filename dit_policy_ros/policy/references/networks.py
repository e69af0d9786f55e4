"""Runs the cases of a reference directory that holds the weights of a network.

A runner is a module with ``settings(reference)``, which turns ``reference.json`` into the family's official
configuration, and ``run(network, case, inputs, reference)``, which returns the outputs of one case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from dit_policy_ros.errors import CheckpointError, one_of
from dit_policy_ros.policy.families import FAMILIES, load_network
from dit_policy_ros.policy.references import (
    cogact,
    diffusion_policy_transformer,
    gr00t,
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
from dit_policy_ros.policy.references.choose import choose
from dit_policy_ros.policy.references.directory import Reference

RUNNERS: dict[str, ModuleType] = {
    "rdt": rdt,
    "h_rdt": h_rdt,
    "rdt2_fm": rdt2_fm,
    "cogact": cogact,
    "gr00t_n16": gr00t,
    "gr00t_n15": gr00t,
    "lerobot_multi_task_dit": lerobot_multi_task_dit,
    "lerobot_multi_task_dit_abs": lerobot_multi_task_dit,
    "diffusion_policy_transformer": diffusion_policy_transformer,
    "diffusion_policy_transformer_inpaint": diffusion_policy_transformer,
    "mode": mode,
    "uwm": uwm,
    "mdt": mdt,
    "mdtv": mdtv,
    "pad": pad,
}


@dataclass(frozen=True)
class Comparison:
    """One output of one case."""

    case: str
    output: str
    error: float
    """Largest difference, in units of the tolerance rule; infinite where shapes differ or a value is not finite."""
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.tolerance


def load_reference_network(
    reference: Reference, weights: str = "weights.safetensors", ignore_unexpected: bool = False
) -> nn.Module:
    """Loads the network of a reference directory.

    Raises:
        CheckpointError: the family is unknown, or ``config`` lacks a size; or see ``load_network``.
    """
    family = reference.data.get("family")
    if family not in RUNNERS:
        raise CheckpointError(one_of("Family", family, RUNNERS))
    runner = RUNNERS[family]
    # A variant of a family has no entry of its own there, and the family's runner is called as the family.
    name = family if family in FAMILIES else runner.__name__.rpartition(".")[2]
    try:
        settings = runner.settings(reference.data)
    except (KeyError, AttributeError, TypeError, ValueError) as problem:
        raise CheckpointError(f"{reference.directory}/reference.json: its 'config' lacks {problem}.") from problem
    return load_network(reference.directory / weights, name, torch.float32, settings, ignore_unexpected)


def knows(reference: Reference, name: str) -> bool:
    """Whether the family's runner has a way to compute this case."""
    case, runner = reference.cases[name], RUNNERS[reference.data["family"]]
    if case.get("kind") in getattr(runner, "KINDS", ()):
        return True
    try:
        choose(runner.CASES, case)
    except KeyError:
        return False
    return True


@torch.no_grad()
def compare(reference: Reference, network: nn.Module, name: str) -> Iterator[Comparison]:
    """Runs one case and compares every expected output.

    Raises:
        CheckpointError: the case or one of its outputs is unknown, or it lacks an array.
    """
    case = reference.cases[name]
    inputs = {key: reference.array(name, key) for key in case["inputs"]}
    if "weights" in case:
        # A stage-1 file may hold legacy parameters, which its own loader ignores.
        network = load_reference_network(reference, case["weights"], ignore_unexpected=True)
    try:
        got = RUNNERS[reference.data["family"]].run(network, case, inputs, reference)
    except KeyError as problem:
        raise CheckpointError(
            f"Case '{name}' of kind '{case['kind']}' is unknown to this family, or lacks {problem}."
        ) from problem
    for key in case["outputs"]:
        if key not in got:
            raise CheckpointError(one_of(f"Output of case '{name}'", key, got))
        error = _error(got[key], reference.array(name, key), reference.relative)
        yield Comparison(name, key, error, case["tolerance"])


def _error(got: Tensor, expected: Tensor, relative: bool) -> float:
    if got.numel() != expected.numel() or got.squeeze().shape != expected.squeeze().shape:
        return float("inf")
    if not expected.numel():
        return 0.0
    got, expected = got.squeeze(), expected.squeeze()
    if not expected.is_floating_point():
        return 0.0 if torch.equal(got.to(expected.dtype), expected) else float("inf")
    scale = max(1.0, expected.abs().max().item()) if relative else 1.0
    error = (got.double() - expected.double()).abs().max().item() / scale
    return error if error == error else float("inf")
