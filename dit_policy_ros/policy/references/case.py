"""One case of a reference directory without weights: what goes in, what must come out, and how close."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dit_policy_ros.policy.references.directory import Reference, load_reference

Outputs = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A case with its arrays."""

    name: str
    operation: str
    parameters: Mapping[str, Any]
    """Options of the case, on top of the directory's ``config``."""
    config: Mapping[str, Any]
    inputs: Mapping[str, Tensor]
    expected: Mapping[str, Tensor]
    arrays: Mapping[str, Tensor]
    """Every array of the directory by its full name; analytic networks live here."""
    tolerance: float

    @classmethod
    def of(cls, reference: Reference, name: str) -> Case:
        """Reads one case.

        Raises:
            CheckpointError: the directory lacks one of its arrays.
        """
        entry = reference.cases[name]
        return cls(
            name=name,
            operation=entry["operation"],
            parameters=entry.get("parameters", {}),
            config=reference.data.get("config", {}),
            inputs={key: reference.array(name, key) for key in entry["inputs"]},
            expected={key: reference.array(name, key) for key in entry["outputs"]},
            arrays=reference.arrays,
            tolerance=entry["tolerance"],
        )

    def errors(self, outputs: Outputs) -> dict[str, float]:
        """Returns the worst scaled error of each expected array, as :func:`scaled_error` measures it."""
        return {name: scaled_error(outputs.get(name), expected) for name, expected in self.expected.items()}


def scaled_error(value: Tensor | None, expected: Tensor) -> float:
    """Returns ``max |value - expected| / max(1, max |expected|)``, infinite for what cannot be compared."""
    if value is None or value.shape != expected.shape or not value.double().isfinite().all():
        return float("inf")
    if not expected.numel():
        return 0.0
    scale = max(1.0, float(expected.double().abs().max()))
    return float((value.double() - expected.double()).abs().max()) / scale


def load_cases(directory: Path | str) -> list[Case]:
    """Reads every case of a directory.

    Raises:
        CheckpointError: a file is missing or damaged, or lacks an array that the other names.
    """
    reference = load_reference(directory)
    return [Case.of(reference, name) for name in reference.cases]
