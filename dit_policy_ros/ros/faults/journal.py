"""The instants of a fault run on disk, one a line, so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.ros.faults.suite import Instant


def read_journal(path: Path) -> list[Instant]:
    """Returns what was done so far; nothing where there is no file.

    Raises:
        ConfigError: a line is none of ``append_instant``.
    """
    if not path.exists():
        return []
    names = {field.name for field in fields(Instant)}
    done = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            values = json.loads(line)
        except json.JSONDecodeError as problem:
            raise ConfigError(f"Line {number} of {path} is no JSON; remove it, or choose another --out.") from problem
        if not isinstance(values, dict) or values.keys() != names:
            raise ConfigError(f"Line {number} of {path} is no instant of a fault; choose another --out.")
        done.append(Instant(**{**values, "violations": tuple(values["violations"])}))
    return done


def append_instant(path: Path, instant: Instant) -> None:
    """Writes one more line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(instant)) + "\n")
