"""Local Hugging Face directories. Nothing is downloaded, no remote code runs, and no pickle is read."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from dit_policy_ros.errors import CheckpointError, PolicyError


def transformers_module() -> ModuleType:
    """Returns the transformers package.

    Raises:
        PolicyError: it is not installed.
    """
    try:
        import transformers
    except ImportError as problem:
        raise PolicyError(
            "This encoder needs transformers: pip install 'dit_policy_ros[encoders]'. "
            "Or give the policy a file of precomputed language embeddings."
        ) from problem
    return transformers


def model_directory(path: str | Path) -> Path:
    """Returns the path of a model directory.

    Raises:
        CheckpointError: there is none, or its weights are not safetensors.
    """
    directory = Path(path)
    if not (directory / "config.json").is_file():
        raise CheckpointError(
            f"{directory} is not a model directory with a config.json. Download the model there first, "
            "for example with 'hf download NAME --local-dir DIR'; nothing is downloaded at run time."
        )
    if not any(directory.glob("*.safetensors")):
        raise CheckpointError(f"{directory} has no safetensors weights; pickled .bin weights are never loaded.")
    return directory


def load_model(loader: Any, path: str | Path, dtype: torch.dtype, **options: Any) -> torch.nn.Module:
    """Loads a model from its directory with a transformers class, frozen and in evaluation mode.

    Raises:
        CheckpointError: see ``model_directory``; or the directory holds another kind of model.
    """
    directory = model_directory(path)
    try:
        model = loader.from_pretrained(
            directory, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=dtype, **options
        )
    except (OSError, ValueError, RuntimeError, KeyError) as problem:
        reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise CheckpointError(f"{directory} does not load as {loader.__name__}: {reason}") from problem
    return model.eval().requires_grad_(False)
