"""A policy without a network, so that a fault run measures the nodes: both arms sway gently around home for ever."""

from __future__ import annotations

import numpy as np

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.types import NS_PER_S, ActionChunk, Context, Observation

AMPLITUDE_RAD = 0.12
FREQUENCY_HZ = 0.4
RETURN_S = 0.3
"""Time in which a deviation from the script fades."""


class ScriptedPolicy:
    """Follows a sine per joint from wherever the arms are."""

    horizon = 40
    step_ns = 20_000_000
    slow_cameras: tuple[str, ...] = ()
    fast_cameras: tuple[str, ...] = ()

    def encode(self, observation: Observation, instruction: str, epoch: int = 0) -> Context:
        """See ``Policy``."""
        return Context(observation.stamp_ns, instruction, epoch, {"nothing": np.zeros(1, dtype=np.float32)})

    def act(self, observation: Observation, context: Context, committed: ActionChunk | None = None) -> ActionChunk:
        """See ``Policy``."""
        names = tuple(observation.positions)
        here = np.array([observation.positions[name] for name in names])
        if not np.isfinite(here).all():
            raise PolicyError("A joint of the observation is not finite.")
        times_s = np.arange(self.horizon) * (self.step_ns / NS_PER_S)
        script = _script(names, observation.stamp_ns / NS_PER_S + times_s)
        actions = script + (here - script[0]) * np.exp(-times_s / RETURN_S)[:, None]
        count = 0
        if committed is not None:
            count = min(len(committed.actions), self.horizon)
            before = committed.actions[:count][:, [committed.names.index(name) for name in names]]
            fade = np.exp(-times_s[: self.horizon - count] / RETURN_S)[:, None]
            actions[count:] = script[count:] + (before[-1] - script[count - 1]) * fade
            actions[:count] = before
        provenance = (observation.stamp_ns, context.stamp_ns, context.epoch, count)
        return ActionChunk(names, observation.stamp_ns, self.step_ns, actions, *provenance)


def load(path: str, threads: int, device: str) -> ScriptedPolicy:
    """Returns the policy; what nodes load policies with."""
    del path, threads, device  # There is nothing to load.
    return ScriptedPolicy()


def _script(names: tuple[str, ...], times_s: np.ndarray) -> np.ndarray:
    """(K, J) positions; grippers stay half open."""
    home = {"shoulder": -0.96, "elbow": 1.16, "wrist_angle": -0.3, "gripper": 0.5}
    middle = np.array([next((v for key, v in home.items() if name.endswith(key)), 0.0) for name in names])
    size = np.array([0.0 if name.endswith("gripper") else AMPLITUDE_RAD for name in names])
    phase = np.arange(len(names)) * 0.7
    return middle + size * np.sin(2.0 * np.pi * FREQUENCY_HZ * times_s[:, None] + phase)
