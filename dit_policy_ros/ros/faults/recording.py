"""One injection on disk: what was published to the controllers, and what was demanded; enough to judge it again."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.ros.faults.judge import Heard, Verdict, judge

_ARRAYS = ("offsets_ns", "positions", "velocities")
_VALUES = tuple(field.name for field in fields(Heard) if field.name not in _ARRAYS)


@dataclass(frozen=True)
class Recording:
    """What the judge is given."""

    heard: tuple[Heard, ...]
    forbidden: tuple[int, int] | None
    misled: str

    def judged(self, robot: RobotSpec) -> Verdict:
        """Returns the verdict."""
        return judge(robot, self.heard, self.forbidden, self.misled)


def write_recording(path: Path, recording: Recording) -> None:
    """Writes a compressed archive of arrays; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"{k}/{name}": getattr(m, name) for k, m in enumerate(recording.heard) for name in (*_VALUES, *_ARRAYS)}
    forbidden = np.array(recording.forbidden or (), dtype=np.int64)
    np.savez_compressed(path, forbidden=forbidden, misled=recording.misled, count=len(recording.heard), **arrays)


def read_recording(path: Path) -> Recording:
    """Reads what ``write_recording`` wrote.

    Raises:
        ConfigError: there is no such file, or it is no recording.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            heard = []
            for k in range(int(archive["count"])):
                values = {name: archive[f"{k}/{name}"] for name in (*_VALUES, *_ARRAYS)}
                plain = {name: value if name in _ARRAYS else value.tolist() for name, value in values.items()}
                heard.append(Heard(**{**plain, "names": tuple(plain["names"])}))
            forbidden = tuple(archive["forbidden"].tolist())
            return Recording(tuple(heard), forbidden or None, str(archive["misled"]))
    except (OSError, KeyError, ValueError) as problem:
        raise ConfigError(
            f"{path} is no recording of a fault ({problem}); give one from the folder 'heard'."
        ) from problem
