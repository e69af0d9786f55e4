"""Where networks run: on the processor, or on a GPU."""

from __future__ import annotations

import torch

from dit_policy_ros.errors import ConfigError

CPU = "cpu"
HOST = torch.device(CPU)


def find_device(name: str) -> torch.device:
    """Returns the device that a user names: 'cpu', 'cuda' (the first GPU) or 'cuda:1'.

    Raises:
        ConfigError: this machine has no such device; the text lists those it has.
    """
    found = {CPU: "", **_gpus()}
    wanted = "cuda:0" if name == "cuda" else name
    if wanted in found:
        return torch.device(wanted)
    listed = ", ".join(f"{key} ({what})" if what else key for key, what in found.items())
    why = "" if torch.version.cuda or torch.version.hip else " The torch of this environment was built without GPUs."
    raise ConfigError(f"Device '{name}' is not here. This machine has: {listed}.{why}")


def _gpus() -> dict[str, str]:
    """Name of each GPU that torch can use to what it is called."""
    if not torch.cuda.is_available():
        return {}
    return {f"cuda:{i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
