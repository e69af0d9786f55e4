"""What a bag says about its own episode, kept as text in the custom data of ``metadata.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from dit_policy_ros.errors import BagError

_PREFIX = "dit_policy_ros."
_INSTANTS = ("surprises_ns", "answers_ns")


@dataclass(frozen=True)
class EpisodeMetadata:
    """Origin and outcome of one episode. Empty text and None mean unknown, as in a foreign bag."""

    robot: str = ""
    instruction: str = ""
    world: str = ""
    seed: int | None = None
    outcome: str = ""
    """'strict', 'sticky' or 'failure'."""
    package_version: str = ""
    surprises_ns: tuple[int, ...] = ()
    """Instants on the bag's clock at which the scene changed in a way that nobody could foresee."""
    answers_ns: tuple[int, ...] = ()
    """When the demonstrator answered each of them; empty means at once."""

    def to_custom_data(self) -> dict[str, str]:
        """Returns what is known as text by prefixed key."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {name: " ".join(map(str, values[name])) for name in _INSTANTS}
        return {_PREFIX + name: str(value) for name, value in values.items() if value not in ("", None, ())}

    @classmethod
    def from_custom_data(cls, data: Mapping[str, str]) -> EpisodeMetadata:
        """Reads ``to_custom_data`` back and ignores other people's keys.

        Raises:
            BagError: the seed or an instant is not a whole number, or an answer is missing.
        """
        known = {field.name: data[_PREFIX + field.name] for field in fields(cls) if _PREFIX + field.name in data}
        seed = known.pop("seed", None)
        instants = {name: tuple(_whole(name, text) for text in known.pop(name, "").split()) for name in _INSTANTS}
        if len(instants["answers_ns"]) not in (0, len(instants["surprises_ns"])):
            raise BagError("The bag's metadata has other than one of answers_ns for each of surprises_ns.")
        return cls(**known, **instants, seed=None if seed is None else _whole("seed", seed))


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as problem:
        raise BagError(f"The bag's metadata has {name} '{text}'; it must be a whole number.") from problem


UNKNOWN = EpisodeMetadata()
