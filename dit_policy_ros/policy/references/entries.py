"""What a ``reference.json`` must be like before any of its cases is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from dit_policy_ros.errors import CheckpointError
from dit_policy_ros.policy.references.directory import Reference

Test = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _tolerance(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _object_or_none(value: Any) -> bool:
    return value is None or isinstance(value, Mapping)


def _text_or_none(value: Any) -> bool:
    return value is None or _text(value)


TOP: Mapping[str, tuple[Test, str]] = {
    "family": (_text_or_none, "a text"),
    "tolerance_meaning": (_text_or_none, "a text"),
    "schedule": (_object_or_none, "an object"),
}
CASE: Mapping[str, tuple[Test, str]] = {
    "name": (_text, "a text"),
    "inputs": (_texts, "a list of names"),
    "outputs": (lambda value: _texts(value) and bool(value), "a list of names, at least one"),
    "tolerance": (_tolerance, "a finite number, 0 or above"),
    "kind": (_text_or_none, "a text"),
    "operation": (_text_or_none, "a text"),
    "settings": (_object_or_none, "an object"),
    "parameters": (_object_or_none, "an object"),
    "weights": (_text_or_none, "a file name"),
}


def check(reference: Reference, needs_config: bool) -> None:
    """Refuses a directory that proves nothing or whose ``reference.json`` has another form.

    Args:
        needs_config: whether its cases run a network.

    Raises:
        CheckpointError: the first entry that is wrong, and what it must be.
    """
    where, data = reference.directory / "reference.json", reference.data
    _check_entries(data, TOP, str(where))
    config = data.get("config", None if needs_config else {})
    if not isinstance(config, Mapping):
        raise CheckpointError(f"{where}: 'config' is {_shown(config)}; it must be an object with the sizes.")
    cases = data.get("cases")
    if not isinstance(cases, list) or not cases:
        raise CheckpointError(f"{where} lists no cases, so it proves nothing.")
    for number, case in enumerate(cases):
        if not isinstance(case, Mapping):
            raise CheckpointError(f"{where}: case {number} is {_shown(case)}; it must be an object.")
        absent = [key for key in ("name", "inputs", "outputs", "tolerance") if key not in case]
        if absent or case["outputs"] == []:
            raise CheckpointError(f"{where}: case {number} lacks {', '.join(absent) or 'outputs'}.")
        _check_entries(case, CASE, f"{where}: case {number}")
    names = [case["name"] for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CheckpointError(f"{where}: the cases {', '.join(twice)} appear twice; rename one.")


def _check_entries(data: Mapping[str, Any], entries: Mapping[str, tuple[Test, str]], where: str) -> None:
    for name, (test, what) in entries.items():
        if name in data and not test(data[name]):
            raise CheckpointError(f"{where}: '{name}' is {_shown(data[name])}; it must be {what}.")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
