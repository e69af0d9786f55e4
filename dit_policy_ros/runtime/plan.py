"""What the controllers were told to do, on the absolute waypoint grid, with a little of the past."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dit_policy_ros.actions.grid import floor_to_grid
from dit_policy_ros.actions.resample import hermite, hermite_velocity
from dit_policy_ros.types import NS_PER_S


@dataclass(frozen=True)
class Bridge:
    """The cubic from where the arms were when a plan began, between two instants of the grid, to its first waypoint."""

    start_ns: int
    end_ns: int
    ends: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    """Position and velocity at the start, position and velocity at the end, (J,) each."""

    def states_at(self, times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions and velocities at instants on the bridge, (N, J) each."""
        interval_ns = self.end_ns - self.start_ns
        w = ((times_ns - self.start_ns) / interval_ns)[:, None]
        interval_s = interval_ns / NS_PER_S
        return hermite(w, interval_s, *self.ends), hermite_velocity(w, interval_s, *self.ends)


@dataclass(frozen=True)
class RunningPlan:
    """Waypoints at ``start_ns + k * step_ns``, joined by cubics; before the first and after the last the arms rest."""

    start_ns: int
    step_ns: int
    positions: np.ndarray
    """(K, J) float64."""
    velocities: np.ndarray
    """(K, J) float64."""
    bridge: Bridge | None = None

    @classmethod
    def at_rest(cls, now_ns: int, step_ns: int, position: np.ndarray) -> RunningPlan:
        """Returns the plan that holds ``position``, (J,)."""
        return cls(floor_to_grid(now_ns, step_ns), step_ns, position[None].copy(), np.zeros((1, len(position))))

    @property
    def end_ns(self) -> int:
        """Instant of the last waypoint."""
        return self.start_ns + (len(self.positions) - 1) * self.step_ns

    def state_at(self, time_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions and velocities at one instant, (J,) each."""
        positions, velocities = self.states_at(np.array([time_ns], dtype=np.int64))
        return positions[0], velocities[0]

    def states_at(self, times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions and velocities at instants, (N, J) each."""
        if len(self.positions) == 1:
            positions = np.repeat(self.positions, len(times_ns), axis=0)
            return positions, np.zeros_like(positions)
        since_ns = np.clip(times_ns, self.start_ns, self.end_ns) - self.start_ns
        k = np.minimum(since_ns // self.step_ns, len(self.positions) - 2)
        w = (since_ns / self.step_ns - k)[:, None]
        segment = (self.positions[k], self.velocities[k], self.positions[k + 1], self.velocities[k + 1])
        step_s = self.step_ns / NS_PER_S
        moving = ((times_ns >= self.start_ns) & (times_ns < self.end_ns))[:, None]
        positions = hermite(w, step_s, *segment)
        velocities = np.where(moving, hermite_velocity(w, step_s, *segment), 0.0)
        if self.bridge is not None:
            bridged = (times_ns >= self.bridge.start_ns) & (times_ns < self.bridge.end_ns)
            positions[bridged], velocities[bridged] = self.bridge.states_at(times_ns[bridged])
        return positions, velocities

    def continued(
        self, now_ns: int, times_ns: np.ndarray, positions: np.ndarray, velocities: np.ndarray, history_ns: int
    ) -> RunningPlan:
        """Returns the plan that was this one until now, then goes through the given waypoints, and rests.

        Args:
            times_ns: (K,) consecutive instants of the grid after ``now_ns``.
            positions: (K, J).
            velocities: (K, J).
            history_ns: how much of the past is kept.
        """
        here_ns = floor_to_grid(now_ns, self.step_ns)
        start_ns = max(min(self.start_ns, here_ns), here_ns - floor_to_grid(history_ns, self.step_ns))
        past, past_velocities = self.states_at(np.arange(start_ns, here_ns + 1, self.step_ns, dtype=np.int64))
        bridge = Bridge(now_ns, int(times_ns[0]), (*self.state_at(now_ns), positions[0], velocities[0]))
        # Instants of the grid between now and the first waypoint lie on the bridge.
        gap, gap_velocities = bridge.states_at(np.arange(here_ns + self.step_ns, bridge.end_ns, self.step_ns))
        return RunningPlan(
            start_ns,
            self.step_ns,
            np.concatenate((past, gap, positions)),
            np.concatenate((past_velocities, gap_velocities, velocities)),
            bridge,
        )
