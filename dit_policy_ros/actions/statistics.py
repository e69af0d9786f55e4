"""Statistics of channels as they travel with a checkpoint or a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.strict_yaml import fields_of


@dataclass(frozen=True)
class ChannelStatistics:
    """What is known of each of C channels; arrays are (C,) float64 in the channel's unit."""

    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    min: np.ndarray | None = None
    max: np.ndarray | None = None
    q01: np.ndarray | None = None
    """1st percentile."""
    q99: np.ndarray | None = None
    mask: np.ndarray | None = None
    """(C,) bool, the channels that are normalised at all; None is all of them."""
    names: tuple[str, ...] | None = None
    """Channel names, where the file has them."""

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any], where: str) -> ChannelStatistics:
        """Reads lists or arrays by the names of the fields, as LeRobot, OpenVLA and our recorder write them.

        Args:
            data: field name to values; counts and other quantiles are passed over.
            where: what to call the mapping in an error.

        Raises:
            CheckpointError: an entry is unknown, not finite, not a vector, or of another length than the others.
        """
        known = tuple(field.name for field in fields(cls))
        fields_of(data, where, CheckpointError, (), (*known, "count", "q10", "q50", "q90"))
        values: dict[str, Any] = {}
        for name in known:
            if name in data and name != "names":
                values[name] = _vector(data[name], f"{where}: {name}", bool if name == "mask" else np.float64)
        lengths = {name: len(value) for name, value in values.items()}
        if "names" in data:
            values["names"] = tuple(map(str, data["names"]))
            lengths["names"] = len(values["names"])
        if not lengths or len(set(lengths.values())) > 1:
            raise CheckpointError(f"{where} must hold vectors of one length; it has {lengths or 'none'}.")
        return cls(**values)

    @classmethod
    def from_json(cls, path: Path | str, *keys: str) -> ChannelStatistics:
        """Reads a JSON file, descending through ``keys`` to the statistics.

        Raises:
            CheckpointError: the file is unreadable or lacks a key; see also :meth:`from_mapping`.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise CheckpointError(f"Cannot read the statistics {path}: {problem}.") from problem
        for key in keys:
            if not isinstance(data, Mapping) or key not in data:
                found = ", ".join(map(str, data)) if isinstance(data, Mapping) else "no keys"
                raise CheckpointError(f"{path} lacks the statistics '{key}'; it has {found}.")
            data = data[key]
        return cls.from_mapping(data, str(path))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], prefix: str) -> ChannelStatistics:
        """Reads the entries ``<prefix><field>`` of a loaded safetensors file.

        Raises:
            CheckpointError: there are none; see also :meth:`from_mapping`.
        """
        found = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
        return cls.from_mapping(found, f"The statistics '{prefix}*'")

    def of(self, names: Sequence[str]) -> ChannelStatistics:
        """Returns the statistics of these channels in this order.

        Raises:
            CheckpointError: the statistics carry no names, or lack one: they are of another robot.
        """
        if self.names is None:
            raise CheckpointError("The statistics carry no channel names, so they cannot be matched to a robot.")
        missing = [name for name in names if name not in self.names]
        if missing:
            raise CheckpointError(
                f"The statistics lack {', '.join(missing)}; they are of another robot, with {', '.join(self.names)}."
            )
        order = [self.names.index(name) for name in names]
        arrays = {
            field.name: getattr(self, field.name)[order]
            for field in fields(self)
            if field.name != "names" and getattr(self, field.name) is not None
        }
        return ChannelStatistics(**arrays, names=tuple(names))


def _vector(values: Any, where: str, kind: type) -> np.ndarray:
    try:
        array = np.array(values, dtype=kind)
    except (TypeError, ValueError) as problem:
        raise CheckpointError(f"{where} is not a list of numbers: {problem}.") from problem
    if array.ndim != 1 or (kind is not bool and not np.isfinite(array).all()):
        raise CheckpointError(f"{where} must be a list of finite numbers; it has shape {array.shape}.")
    return array
