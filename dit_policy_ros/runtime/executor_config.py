"""What a user may set of the executor."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from dit_policy_ros.actions.resample import METHODS
from dit_policy_ros.errors import ConfigError, one_of
from dit_policy_ros.resources import find_config
from dit_policy_ros.strict_yaml import fields_of, load_yaml_mapping

MODES = {
    "position_mode": ("clamp", "refuse"),
    "velocity_mode": ("clamp", "slow", "refuse"),
    "acceleration_mode": ("clamp", "slow", "refuse"),
    "jerk_mode": ("clamp", "slow", "refuse"),
    "tool_speed_mode": ("slow", "refuse"),
    "workspace_mode": ("stop", "refuse"),
    "collision_mode": ("stop", "refuse", "off"),
}
"""Option to what it may be."""


@dataclass(frozen=True)
class ExecutorConfig:
    """Limits in time and space that are not the robot's own; those are in its YAML.

    Raises:
        ConfigError: a value is out of range.
    """

    waypoint_s: float = 0.02
    """Distance of the waypoints sent to the controllers, [s]."""
    lead_s: float = 0.005
    """A motion is changed at least this far ahead, so that the controller has the new one by then, [s]."""
    max_context_age_s: float = 2.0
    """Age of the observation behind the context at which chunks are refused and motion stops, [s]."""
    max_future_s: float = 0.5
    """Chunks that start, or stem from stamps, farther ahead are refused, [s]."""
    max_horizon_s: float = 5.0
    """What a chunk says of later instants is left to the chunks after it, [s]."""
    max_first_jump_s: float = 0.2
    """From rest, a chunk may begin as far from the measured state as each joint can move in this time, [s]."""
    history_s: float = 1.0
    """How much of the past the published plan remembers, for committed prefixes, [s]."""
    collision_margin_m: float = 0.003
    """Distance that parts of the robot keep from each other and from what stands around, [m]."""
    resampling: str = "cubic"
    """'cubic' or 'linear': how actions become waypoints."""
    position_mode: str = "clamp"
    """'clamp' goes to the limit, 'refuse' refuses the chunk."""
    velocity_mode: str = "clamp"
    """'clamp' stays below the limit and leaves the path where it must, 'slow' takes more time for the same path, and
    refuses the chunk if that does not help, 'refuse' refuses it. So for acceleration and jerk."""
    acceleration_mode: str = "clamp"
    jerk_mode: str = "clamp"
    tool_speed_mode: str = "slow"
    """'slow' or 'refuse'."""
    workspace_mode: str = "stop"
    """'stop' follows the chunk to the last place from which it can stop inside, 'refuse' refuses it."""
    collision_mode: str = "stop"
    """As ``workspace_mode``, or 'off'."""

    def __post_init__(self) -> None:
        for option, allowed in {"resampling": METHODS, **MODES}.items():
            if getattr(self, option) not in allowed:
                raise ConfigError(one_of(f"Value of the executor option {option}", getattr(self, option), allowed))
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name in MODES or entry.name == "resampling":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < float("inf"):
                raise ConfigError(f"Executor option {entry.name} is {value}; it must be above zero and finite.")


def load_executor_config(path: str | Path) -> ExecutorConfig:
    """Loads options from YAML: a mapping of the fields of :class:`ExecutorConfig`; what is missing has its default.

    Args:
        path: a YAML file, or the bare name of one shipped in ``config/executor``.

    Raises:
        ConfigError: there is no such file, or an option is unknown or out of range.
    """
    path = find_config("executor", path)
    names = tuple(entry.name for entry in fields(ExecutorConfig))
    return ExecutorConfig(**fields_of(load_yaml_mapping(path, ConfigError), str(path), ConfigError, (), names))
