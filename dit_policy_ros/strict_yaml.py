"""Strict reading of YAML mappings: a missing, unknown, duplicate or mistyped entry is an error that names it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dit_policy_ros.errors import DitPolicyError


class _StrictLoader(yaml.SafeLoader):
    """Safe loader that refuses duplicate keys, which plain YAML loaders silently drop."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' appears twice; remove one", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml_mapping(path: Path, error: type[DitPolicyError]) -> dict[str, Any]:
    """Reads a YAML file whose top level is a mapping.

    Raises:
        error: the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        data = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"Cannot read {path}: {problem}.") from problem
    except yaml.YAMLError as problem:
        text = " ".join(str(problem).split())
        raise error(f"{path} is not valid YAML: {text}.") from problem
    if not isinstance(data, dict):
        raise error(f"{path} must hold a mapping of keys to values at its top level.")
    return data


def fields_of(
    data: Any,
    where: str,
    error: type[DitPolicyError],
    required: Sequence[str],
    optional: Sequence[str] = (),
) -> Mapping[str, Any]:
    """Returns ``data`` if it is a mapping with all required and no unknown keys.

    Raises:
        error: otherwise; the text lists what is missing, unknown and allowed.
    """
    if not isinstance(data, Mapping):
        raise error(f"{where} must be a mapping with the keys {', '.join((*required, *optional))}.")
    missing = [key for key in required if key not in data]
    unknown = [str(key) for key in data if key not in required and key not in optional]
    if missing or unknown:
        parts = []
        if missing:
            parts.append(f"lacks {', '.join(missing)}")
        if unknown:
            parts.append(f"has unknown {', '.join(unknown)}")
        raise error(f"{where} {' and '.join(parts)}. Allowed: {', '.join((*required, *optional))}.")
    return data


def number(value: Any, where: str, error: type[DitPolicyError]) -> float:
    """Returns a finite float.

    Raises:
        error: not a finite number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise error(f"{where} is '{value}'; it must be a finite number.")
    return float(value)


def positive(value: Any, where: str, error: type[DitPolicyError]) -> float:
    """Returns a finite float above zero.

    Raises:
        error: not such a number.
    """
    result = number(value, where, error)
    if result <= 0:
        raise error(f"{where} is {result:g}; it must be above zero.")
    return result


def pair(value: Any, where: str, error: type[DitPolicyError]) -> tuple[float, float]:
    """Returns (lower, upper) with lower below upper.

    Raises:
        error: not two such numbers.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise error(f"{where} is '{value}'; it must be [lower, upper].")
    lower, upper = (number(bound, where, error) for bound in value)
    if lower >= upper:
        raise error(f"{where} is [{lower:g}, {upper:g}]; the lower bound must be below the upper one.")
    return lower, upper
