"""One reference directory of a network.

It holds ``reference.json`` (family, configuration, cases with tolerances), ``cases.safetensors`` and weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.weights import read_json, read_tensors


@dataclass(frozen=True)
class Reference:
    """One reference directory."""

    directory: Path
    data: Mapping[str, Any]
    """``reference.json``."""
    arrays: Mapping[str, Tensor]
    """``<case>.<array>`` to its values."""

    @property
    def cases(self) -> Mapping[str, Mapping[str, Any]]:
        """Case name to its entry in ``reference.json``."""
        return {case["name"]: case for case in self.data["cases"]}

    @property
    def relative(self) -> bool:
        """Whether a tolerance is multiplied by the largest expected value, where that is above 1."""
        return "max(1" in self.data.get("tolerance_meaning", "")

    def array(self, case: str, name: str) -> Tensor:
        """Returns one array of a case.

        Raises:
            CheckpointError: the file lacks it.
        """
        key = f"{case}.{name}"
        if key not in self.arrays:
            raise CheckpointError(f"{self.directory}/cases.safetensors lacks '{key}', which reference.json lists.")
        return self.arrays[key]


def load_reference(directory: str | Path) -> Reference:
    """Reads a reference directory without its weights.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    directory = Path(directory)
    if not (directory / "reference.json").is_file():
        raise CheckpointError(
            f"{directory} is no reference directory: it has no reference.json. 'verify' reads directories like those "
            "in test/golden; a checkpoint is proved by 'convert', a policy by 'bench --policy'."
        )
    return Reference(directory, read_json(directory / "reference.json"), read_tensors(directory / "cases.safetensors"))
