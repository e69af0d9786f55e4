"""All that a training run must remember to go on, as safetensors and JSON."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.train.objective import Objective

_TENSORS = "state.safetensors"
_PROGRESS = "progress.json"


@dataclass
class RunState:
    """Mutable: the one place where a run's progress lives."""

    objective: Objective
    average: dict[str, Tensor]
    """Moving average of the network's weights, by name."""
    optimizer: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    """Time spent in training steps so far, over all resumptions."""

    def save(self, directory: Path) -> None:
        """Writes beside the old state and swaps the files, so that a crash leaves one of the two whole."""
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {f"network.{name}": value for name, value in self.objective.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        names = [name for name, _ in self.objective.named_parameters()]
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{names[index]}.{key}": value for key, value in moments.items()}
        progress = {"step": str(self.step), "seconds": str(self.seconds)}
        temporary = directory / f"{_TENSORS}.new"
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, metadata=progress)
        os.replace(temporary, directory / _TENSORS)
        (directory / _PROGRESS).write_text(json.dumps(progress) + "\n")

    def load(self, directory: Path) -> bool:
        """Takes up a saved state; returns whether there was one.

        Raises:
            CheckpointError: the state is damaged or of another network.
        """
        file = directory / _TENSORS
        if not file.exists():
            return False
        try:
            tensors = load_file(file)
            progress = json.loads((directory / _PROGRESS).read_text())
            groups: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
            for name, value in tensors.items():
                group, _, rest = name.partition(".")
                groups[group][rest] = value
            self.objective.load_state_dict(groups["network"])
            self.average = groups["average"]
            self.optimizer.load_state_dict(self._moments(groups["optimizer"]))
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as problem:
            text = " ".join(str(problem).split())[:200]
            raise CheckpointError(f"{directory} holds no state of this run: {text}. Choose another --out.") from problem
        self.step, self.seconds = int(progress["step"]), float(progress["seconds"])
        return True

    def _moments(self, tensors: dict[str, Tensor]) -> dict:
        names = [name for name, _ in self.objective.named_parameters()]
        state = {
            index: {key: tensors[f"{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for index, name in enumerate(names)
            # A parameter that no loss has reached yet has no moments.
            if f"{name}.step" in tensors
        }
        return {"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]}
