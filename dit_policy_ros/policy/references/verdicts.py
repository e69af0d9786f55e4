"""Whether a reference directory comes out here as it did with the official code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dit_policy_ros.errors import DitPolicyError, one_of
from dit_policy_ros.policy.references.case import Case
from dit_policy_ros.policy.references.directory import Reference, load_reference
from dit_policy_ros.policy.references.entries import check
from dit_policy_ros.policy.references.methods import METHODS, run
from dit_policy_ros.policy.references.networks import RUNNERS, compare, knows, load_reference_network

OK, FAILED, UNKNOWN = "ok", "FAILED", "unknown"


@dataclass(frozen=True)
class Verdict:
    """Outcome of one case."""

    case: str
    status: str
    """OK, FAILED or UNKNOWN."""
    error: float
    """Worst error of all outputs, by the directory's own rule; infinite where the case could not be run."""
    tolerance: float
    reason: str = ""
    """The output with the worst error, or why the case could not be run."""


def verify(directory: str | Path) -> Iterator[Verdict]:
    """Runs every case of a reference directory, in its order.

    Raises:
        CheckpointError: a file is missing, damaged or malformed, or the weights do not make a network.
    """
    reference = load_reference(directory)
    family = reference.data.get("family")
    check(reference, needs_config=isinstance(family, str) and family in RUNNERS)
    if family in METHODS:
        return (_of_method(reference, family, name) for name in reference.cases)
    if family in RUNNERS:
        network = load_reference_network(reference)
        return (_of_network(reference, network, name) for name in reference.cases)
    reason = one_of("Family", family, [*RUNNERS, *METHODS])
    return (_unknown(reference, name, reason) for name in reference.cases)


def _of_method(reference: Reference, family: str, name: str) -> Verdict:
    operation = reference.cases[name].get("operation")
    if operation not in METHODS[family]:
        return _unknown(reference, name, one_of(f"Operation of family '{family}'", operation, METHODS[family]))
    try:
        case = Case.of(reference, name)
        return _judged(reference, name, case.errors(run(family, case)))
    except Exception as problem:
        return _broken(reference, name, problem)


def _of_network(reference: Reference, network: nn.Module, name: str) -> Verdict:
    if not knows(reference, name):
        kind = reference.cases[name].get("kind")
        return _unknown(reference, name, f"The family '{reference.data['family']}' has no cases of kind '{kind}'.")
    try:
        return _judged(reference, name, {c.output: c.error for c in compare(reference, network, name)})
    except Exception as problem:
        return _broken(reference, name, problem)


def _judged(reference: Reference, name: str, errors: dict[str, float]) -> Verdict:
    worst = max(errors, key=lambda output: errors[output])
    tolerance = float(reference.cases[name]["tolerance"])
    return Verdict(name, OK if errors[worst] <= tolerance else FAILED, errors[worst], tolerance, worst)


def _unknown(reference: Reference, name: str, reason: str) -> Verdict:
    return Verdict(name, UNKNOWN, float("inf"), float(reference.cases[name]["tolerance"]), reason)


def _broken(reference: Reference, name: str, problem: Exception) -> Verdict:
    """A case that cannot be run fails, with its reason, and the others are still run."""
    text = str(problem) if isinstance(problem, DitPolicyError) else f"{type(problem).__name__}: {problem}"
    tolerance = float(reference.cases[name]["tolerance"])
    return Verdict(name, FAILED, float("inf"), tolerance, " ".join(text.split()))
