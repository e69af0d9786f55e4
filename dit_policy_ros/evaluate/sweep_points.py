"""Finished points of a sweep, one JSON file each, so that an interrupted run goes on where it stopped.

A point is found again only by a run that everything which decides its result is the same for; see ``PointFiles``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.evaluate.document import json_text, write_whole
from dit_policy_ros.evaluate.sweep import Condition, Point

FOLDER = "points"
_PACKAGE = Path(__file__).resolve().parents[1]
BYSTANDERS = ("ros/", "train/", "data/", "commands/", "evaluate/", "__main__.py")
"""Beginnings of paths in the package that no simulated episode passes through,"""
INVOLVED = (
    "commands/episodes.py",
    "data/quantiles.py",
    "data/scratch.py",
    "evaluate/delays.py",
    "evaluate/episode.py",
    "evaluate/loop.py",
    "evaluate/loop_log.py",
    "evaluate/record.py",
    "evaluate/smoothness.py",
    "evaluate/statistics.py",
    "evaluate/sweep.py",
)
"""but for these."""


class PointFiles:
    """Points in ``<report>/points``, named by their condition and a digest of all that decides them."""

    def __init__(self, report: Path, setting: Mapping[str, Any]) -> None:
        """Reads nothing yet.

        Args:
            setting: what decides the result beside the condition, as JSON has it: weights, code, world, seeds, options.
        """
        self.folder = report / FOLDER
        self._setting = dict(setting)

    def path(self, condition: Condition) -> Path:
        """Returns the file of a point, whether it is there or not."""
        digest = hashlib.sha256(json.dumps(self._key(condition), sort_keys=True).encode()).hexdigest()
        at = f"context{condition.context_delay_s:g}-action{condition.action_delay_s:g}-{condition.pattern}"
        return self.folder / f"{condition.method or 'own'}-{at}-{digest[:16]}.json"

    def load(self, condition: Condition) -> Point | None:
        """Returns a finished point; None where there is none of this setting.

        Raises:
            ConfigError: the file is damaged.
        """
        path = self.path(condition)
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            point = Point.from_dict(data["point"])
            fits = data["setting"] == self._key(condition) and point.condition == condition
        except (KeyError, TypeError, ValueError) as problem:
            raise ConfigError(f"{path} is no finished point ({problem!r}); delete it to measure it anew.") from None
        if not fits:
            raise ConfigError(f"{path} says that it is of another setting than its name; delete it.")
        return point

    def save(self, point: Point) -> Path:
        """Writes a finished point in one step and returns its path."""
        data = {"setting": self._key(point.condition), "point": point.to_dict()}
        return write_whole(self.path(point.condition), json_text(data))

    def others(self, conditions: tuple[Condition, ...]) -> int:
        """Returns how many points of these conditions lie there that were measured in another setting."""
        own = {self.path(condition).name for condition in conditions}
        stems = {name.rpartition("-")[0] for name in own}
        found = self.folder.glob("*.json")
        return sum(file.name not in own and file.name.rpartition("-")[0] in stems for file in found)

    def _key(self, condition: Condition) -> dict[str, Any]:
        return {**self._setting, **asdict(condition)}


@cache
def running_code_sha256() -> str:
    """Returns the digest of this package, as it was when it was first asked for."""
    return code_sha256(_PACKAGE)


def code_sha256(package: Path) -> str:
    """Returns a digest of a package's source, as far as an episode passes through it."""
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package).as_posix()
        if decides(name):
            digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def decides(name: str) -> bool:
    """Whether a file of the package, given by its path in it, may change what an episode does."""
    return name in INVOLVED or not name.startswith(BYSTANDERS)


def folder_sha256(directory: Path) -> str:
    """Returns a digest of the small files of a policy: all but weights, which are large and hashed alone, and texts."""
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        if file.suffix in (".yaml", ".json", ".txt"):
            digest.update(file.relative_to(directory).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
