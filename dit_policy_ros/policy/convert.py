"""Turns an official checkpoint into a verified directory of safetensors."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from dit_policy_ros.errors import CheckpointError, one_of
from dit_policy_ros.policy.families import FAMILIES, identify, load_network
from dit_policy_ros.policy.weights import (
    INDEX,
    TORCH_INDEX,
    TORCH_SUFFIXES,
    read_tensors,
    read_torch_file,
    read_torch_shards,
)

INDEX_SUFFIX = ".index.json"


def convert(source: str | Path, directory: str | Path, family: str | None = None) -> str:
    """Writes the network of a checkpoint, under the official names, and loads it again as a proof.

    Parts that belong to an encoder or an optimizer are left out. A ``config.json`` beside the source is copied.

    Args:
        source: a torch file (weights-only), a safetensors file, an index of shards, or a directory with one of them.
        directory: made by this call; nothing is left there on failure.
        family: the one it must be of; None takes what its parameter names say.

    Returns:
        The family.

    Raises:
        CheckpointError: the directory exists or cannot be written; the family is unknown; the source holds code, is
            damaged, incomplete, or of another family.
    """
    source, directory = Path(source), Path(directory)
    if directory.exists():
        raise CheckpointError(f"{directory} exists already; give a new directory.")
    if family is not None and family not in FAMILIES:
        raise CheckpointError(one_of("Family", family, FAMILIES))
    tensors = _read(source)
    found, prefix = identify({name: tuple(value.shape) for name, value in tensors.items()}, source, family)
    if family is not None and found != family:
        raise CheckpointError(
            f"{source} is of the family '{found}', but '{family}' was asked for; give the other path."
        )
    try:
        _write(tensors, found, prefix, source, directory)
    except OSError as problem:
        raise CheckpointError(f"{directory} cannot be written: {problem}.") from problem
    return found


def _write(tensors: Mapping[str, Tensor], family: str, prefix: str, source: Path, directory: Path) -> None:
    """Makes the directory beside its place and moves it there once it has been loaded."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as temporary:
        made = Path(temporary) / "checkpoint"
        made.mkdir()
        # Tied parameters share memory, which the format does not allow.
        kept = {n.removeprefix(prefix): t.clone().contiguous() for n, t in tensors.items() if n.startswith(prefix)}
        save_file(kept, made / "model.safetensors")
        config = (source if source.is_dir() else source.parent) / "config.json"
        if config.is_file():
            shutil.copyfile(config, made / "config.json")
        load_network(made, family, where=source)
        made.rename(directory)


def _read(source: Path) -> dict[str, Tensor]:
    if source.is_dir():
        return _read_directory(source)
    if not source.is_file():
        raise CheckpointError(f"There is no file or directory {source}.")
    if source.name.endswith(INDEX_SUFFIX):
        return read_torch_shards(source) if ".bin" in source.name else read_tensors(source.parent)
    return read_torch_file(source) if source.suffix in TORCH_SUFFIXES else read_tensors(source)


def _read_directory(source: Path) -> dict[str, Tensor]:
    if any(source.glob("*.safetensors")) or (source / INDEX).is_file():
        return read_tensors(source)
    if (source / TORCH_INDEX).is_file():
        return read_torch_shards(source / TORCH_INDEX)
    files = sorted(path for path in source.glob("*") if path.suffix in TORCH_SUFFIXES)
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise CheckpointError(
            f"{source} must hold one {', '.join(TORCH_SUFFIXES)} file, shards with {TORCH_INDEX}, or safetensors; "
            f"found {names}."
        )
    return read_torch_file(files[0])
