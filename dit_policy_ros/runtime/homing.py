"""The way home as chunks, so that it passes the same limits as every other motion."""

from __future__ import annotations

import numpy as np

from dit_policy_ros.actions.minimum_jerk import minimum_jerk
from dit_policy_ros.types import NS_PER_S, ActionChunk

STEP_NS = 20_000_000
HORIZON = 50
"""Actions in one chunk, 1 s; a new one is made several times a second."""
VELOCITY_SHARE = 0.3
ACCELERATION_SHARE = 0.5


class Homing:
    """A straight line in joint space with the least jerk, 10 w^3 - 15 w^4 + 6 w^5 (Flash and Hogan, 1985)."""

    def __init__(self, start: np.ndarray, goal: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray) -> None:
        """Plans the way.

        Args:
            start: (J,) where the joints are.
            goal: (J,) where they go.
            velocity: (J,) limits; three tenths of them are used.
            acceleration: (J,) limits; half of them is used.
        """
        self._start, self._goal = start, goal
        distance = np.abs(goal - start)
        # The profile's peaks are 15/8 of the mean speed and 10/sqrt(3) of distance per duration squared.
        by_velocity = 1.875 * distance / (VELOCITY_SHARE * velocity)
        by_acceleration = np.sqrt(10.0 / np.sqrt(3.0) * distance / (ACCELERATION_SHARE * acceleration))
        self.duration_s = float(max(by_velocity.max(), by_acceleration.max(), 1e-3))
        self._phase_s = 0.0
        self._at_ns: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether the goal should have been reached."""
        return self._phase_s >= self.duration_s

    def chunk(self, names: tuple[str, ...], now_ns: int, epoch: int, speed: float) -> ActionChunk:
        """Returns what comes from now on, and advances; to be asked in the order of time.

        Args:
            speed: 0..1, how fast the way is gone.
        """
        if self._at_ns is not None:
            self._phase_s += max(0, now_ns - self._at_ns) / NS_PER_S * speed
        self._at_ns = now_ns
        w = np.clip((self._phase_s + np.arange(HORIZON) * (STEP_NS / NS_PER_S * speed)) / self.duration_s, 0.0, 1.0)
        share = minimum_jerk(w)[:, None]
        actions = self._start + share * (self._goal - self._start)
        return ActionChunk(names, now_ns, STEP_NS, actions, now_ns, now_ns, max(epoch, 0))
