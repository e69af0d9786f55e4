"""What a user may set of the executor."""

from __future__ import annotations

from dataclasses import dataclass, fields

from dit_policy_ros.actions.resample import METHODS
from dit_policy_ros.errors import ConfigError, one_of


@dataclass(frozen=True)
class ExecutorConfig:
    """Limits in time and space that are not the robot's own; those are in its YAML.

    Raises:
        ConfigError: a value is out of range.
    """

    waypoint_s: float = 0.02
    """Distance of the waypoints sent to the controllers, [s]."""
    lead_s: float = 0.005
    """The first waypoint lies at least this far ahead, so that it is still ahead when the controller reads it, [s].
    At least a fifth of ``waypoint_s`` is kept."""
    max_context_age_s: float = 2.0
    """Age of the observation behind the context at which chunks are refused and motion stops, [s]."""
    max_future_s: float = 0.5
    """Chunks that start, or stem from stamps, farther ahead are refused, [s]."""
    max_first_jump_s: float = 0.2
    """From rest, a chunk may begin as far from the measured state as each joint can move in this time, [s]."""
    history_s: float = 1.0
    """How much of the past the published plan remembers, for committed prefixes, [s]."""
    resampling: str = "cubic"
    """'cubic' or 'linear': how actions become waypoints."""

    def __post_init__(self) -> None:
        if self.resampling not in METHODS:
            raise ConfigError(one_of("Resampling method", self.resampling, METHODS))
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name != "resampling" and not 0.0 < value < float("inf"):
                raise ConfigError(f"Executor option {entry.name} is {value}; it must be above zero and finite.")
