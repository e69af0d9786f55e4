"""Reading and writing weights: safetensors directories, strict loading, conversion of torch files. Never pickle."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dit_policy_ros.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
"""Parameter name to shape."""

INDEX = "model.safetensors.index.json"
TORCH_INDEX = "pytorch_model.bin.index.json"
SINGLE = ("model.safetensors", "weights.safetensors")
TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
_LISTED = 50


def weight_files(path: Path) -> Mapping[Path, Collection[str] | None]:
    """Returns the safetensors files of a checkpoint, each with the names it must hold (None: whatever is there).

    Args:
        path: a file, or a directory with a sharded index, a ``model.safetensors``, or exactly one such file.

    Raises:
        CheckpointError: no weights, an ambiguous choice, or a shard that is missing.
    """
    path = Path(path)
    if path.is_file():
        return {path: None}
    if (path / INDEX).is_file():
        return _shards(path / INDEX)
    for name in SINGLE:
        if (path / name).is_file():
            return {path / name: None}
    found = sorted(path.glob("*.safetensors"))
    torch_files = {file.stem for file in path.glob("*") if file.suffix in TORCH_SUFFIXES}
    # A single file is a guess: beside a torch file of another name it may hold something else, such as embeddings.
    if len(found) != 1 or torch_files - {found[0].stem}:
        others = ", ".join(sorted(file.name for file in path.iterdir())) if path.is_dir() else "no such directory"
        what = {0: "no", 1: "no unmistakable"}.get(len(found), "several")
        raise CheckpointError(
            f"{path} holds {what} safetensors files ({others or 'it is empty'}). "
            f"Expected {INDEX}, {SINGLE[0]} or one other .safetensors file; "
            "convert .pt and .bin files first: python -m dit_policy_ros convert."
        )
    return {found[0]: None}


def _shards(index: Path) -> Mapping[Path, Collection[str]]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no 'weight_map' of names to files; download it again.")
    shards: dict[Path, list[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise CheckpointError(f"{index} sends '{name}' to '{file}'; it must be a file beside it.")
        shards.setdefault(index.parent / file, []).append(name)
    missing = [file.name for file in shards if not file.is_file()]
    if missing:
        raise CheckpointError(f"{index.parent} lacks the shards {', '.join(missing)}; download them again.")
    return shards


def _opened(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields every parameter name with the open file that holds it.

    Raises:
        CheckpointError: a file is damaged or does not hold what the index promises.
    """
    for file, promised in weight_files(path).items():
        try:
            with safe_open(file, framework="pt") as handle:
                names = list(handle.keys())
                _check_promise(file, promised or (), names)
                for name in names if promised is None else promised:
                    yield name, handle
        except (SafetensorError, OSError) as problem:
            raise CheckpointError(
                f"{file} is damaged or not a safetensors file ({problem}); copy it again."
            ) from problem


def _check_promise(file: Path, promised: Collection[str], names: Collection[str]) -> None:
    absent = sorted(set(promised) - set(names))
    if absent:
        raise CheckpointError(f"{file} lacks {_listing(absent)}, which the index says it holds.")


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter of a checkpoint without reading the values.

    Raises:
        CheckpointError: see ``weight_files``; or a file is damaged.
    """
    return {name: tuple(handle.get_slice(name).get_shape()) for name, handle in _opened(path)}


def read_tensors(
    path: Path,
    prefix: str = "",
    dtype: torch.dtype | None = None,
    rename: Callable[[str], str | None] | None = None,
) -> dict[str, Tensor]:
    """Returns the parameters whose names begin with ``prefix``, without it.

    Args:
        dtype: floating-point parameters are cast to it, one after the other; None keeps them.
        rename: from the name without prefix to the one returned; what it maps to None is not read.

    Raises:
        CheckpointError: see ``weight_files``; or a file is damaged.
    """
    tensors = {}
    for name, handle in _opened(path):
        short = name[len(prefix) :] if name.startswith(prefix) else None
        if short is not None and rename is not None:
            short = rename(short)
        if short is not None:
            tensor = handle.get_tensor(name)
            tensors[short] = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
    return tensors


def count_layers(shapes: Shapes, prefix: str) -> int:
    """Returns one more than the highest number that follows a prefix such as ``model.blocks.``."""
    numbers = [name[len(prefix) :].partition(".")[0] for name in shapes if name.startswith(prefix)]
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file whose top level is an object.

    Raises:
        CheckpointError: it cannot be read, or is something else.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise CheckpointError(f"Cannot read {path}: {problem}; it must hold a JSON object, copy it again.") from problem
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object at its top level.")
    return data


def load_strict(network: nn.Module, tensors: Mapping[str, Tensor], where: object) -> None:
    """Puts tensors into a network, which may be on the meta device; dtypes become those of the tensors.

    Raises:
        CheckpointError: names or shapes differ; the text lists all that are unexpected, missing or misshapen.
    """
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    unexpected = sorted(tensors.keys() - wanted.keys())
    missing = sorted(wanted.keys() - tensors.keys())
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in sorted(wanted.items())
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    kinds = {"unexpected": unexpected, "missing": missing, "misshapen": misshapen}
    if any(kinds.values()):
        text = "; ".join(f"{kind}: {_listing(names)}" for kind, names in kinds.items() if names)
        raise CheckpointError(
            f"{where} does not fit {type(network).__name__}: {text}. "
            "Give the complete weights with their own config.json."
        )
    network.load_state_dict(dict(tensors), strict=True, assign=True)


def _listing(names: Collection[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def read_torch_file(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a ``.pt``, ``.pth``, ``.ckpt`` or ``.bin`` file with the weights-only loader.

    Nested dictionaries are flattened to dotted names; whatever is not a tensor is left out.

    Raises:
        CheckpointError: the file holds code, is damaged, or has no tensors.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of pickle's protocol before it refuses the file
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as problem:  # the loader's own error belongs to a module that this package never imports
        raise CheckpointError(
            f"Refused {path}: the weights-only loader found {_refusal(problem)}. "
            "Only files that hold plain tensors are converted; ask its author for safetensors."
        ) from problem
    tensors = dict(_flattened(data))
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors.")
    return tensors


def _refusal(problem: Exception) -> str:
    """What is wrong with a torch file, without the loader's own advice, which is to run the code."""
    named = re.search(r"GLOBAL ([\w.]+)", str(problem))
    if named:
        return f"code in it ({named.group(1)})"
    return "code or damage" if type(problem).__name__ == "UnpicklingError" else "damage (is it complete?)"


def read_torch_shards(index: Path) -> dict[str, Tensor]:
    """Reads the tensors of the shards that a ``pytorch_model.bin.index.json`` lists, each weights-only.

    Raises:
        CheckpointError: see ``read_torch_file``; or a shard is missing or lacks what the index promises.
    """
    tensors = {}
    for file, promised in _shards(index).items():
        held = read_torch_file(file)
        _check_promise(file, promised, held)
        tensors.update({name: held[name] for name in promised})
    return tensors


def _flattened(data: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(data, Tensor):
        yield name, data.detach()
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from _flattened(value, f"{name}.{key}" if name else str(key))
