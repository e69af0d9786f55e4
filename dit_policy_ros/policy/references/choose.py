"""Which of a runner's functions computes a case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

BY_NAME = ("encode", "init")
"""Kinds that say too little: the case's name tells what is computed."""


def choose(functions: Mapping[str, Callable[..., Any]], case: Mapping[str, Any]) -> Callable[..., Any]:
    """Returns the function of a case's kind; where that is in ``BY_NAME``, the longest that its name begins with.

    Raises:
        KeyError: there is none.
    """
    kind = case["kind"]
    if kind in functions:
        return functions[kind]
    begun = [name for name in functions if kind in BY_NAME and case["name"].startswith(name)]
    if not begun:
        raise KeyError(kind)
    return functions[max(begun, key=len)]


def option(case: Mapping[str, Any], *names: str, default: Any = None) -> Any:
    """Returns the first of these options that a case has, in its ``settings`` or beside its name."""
    for source in (case.get("settings") or {}, case):
        for name in names:
            if source.get(name) is not None:
                return source[name]
    return default
