"""What the controllers were told to do, with a little of the past."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dit_policy_ros.actions.grid import ceil_to_grid, floor_to_grid
from dit_policy_ros.actions.motion import Motion, reaches
from dit_policy_ros.types import NS_PER_S, nanoseconds


@dataclass(frozen=True)
class RunningPlan:
    """Knots joined by cubics, as controllers join waypoints; before the first and after the last the arms rest."""

    times_ns: np.ndarray
    """(K,) int64, strictly increasing."""
    positions: np.ndarray
    """(K, J) float64."""
    velocities: np.ndarray
    """(K, J) float64."""

    @classmethod
    def at_rest(cls, now_ns: int, step_ns: int, position: np.ndarray) -> RunningPlan:
        """Returns the plan that holds ``position``, (J,)."""
        times_ns = np.array([floor_to_grid(now_ns, step_ns)], dtype=np.int64)
        return cls(times_ns, position[None].copy(), np.zeros((1, len(position))))

    @property
    def start_ns(self) -> int:
        """Instant of the first knot."""
        return int(self.times_ns[0])

    @property
    def end_ns(self) -> int:
        """Instant of the last knot, from which on the arms rest."""
        return int(self.times_ns[-1])

    def state_at(self, time_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions and velocities at one instant, (J,) each."""
        positions, velocities = self.states_at(np.array([time_ns], dtype=np.int64))
        return positions[0], velocities[0]

    def states_at(self, times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions and velocities at instants, (N, J) each."""
        return self._derivatives_at(times_ns)[:2]

    def motion_at(self, times_ns: np.ndarray, step_ns: int) -> Motion:
        """Returns positions, velocities and accelerations at instants that are ``step_ns`` apart."""
        return Motion(step_ns / NS_PER_S, *self._derivatives_at(times_ns))

    def follows_grid(self, first_ns: int, step_ns: int) -> bool:
        """Whether all knots from an instant on lie whole steps behind it."""
        return not ((self.times_ns[self.times_ns >= first_ns] - first_ns) % step_ns).any()

    def reach(self, from_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the lowest and the highest position from an instant on, (J,) each."""
        ahead_ns = self.times_ns[self.times_ns > from_ns]
        instants_ns = np.concatenate(([from_ns], ahead_ns))
        position, velocity, acceleration = self._derivatives_at(instants_ns)
        if not len(ahead_ns):
            return position[0], position[0]
        lengths_s = (np.diff(instants_ns) / NS_PER_S)[:, None]
        jerk = np.diff(acceleration, axis=0) / lengths_s
        lowest, highest = reaches(lengths_s, position[:-1], velocity[:-1], acceleration[:-1], jerk)
        return lowest.min(axis=0), highest.max(axis=0)

    def continued(self, first_ns: int, motion: Motion, since_ns: int) -> RunningPlan:
        """Returns the plan that is this one up to an instant, and then a motion.

        Args:
            first_ns: the instant of the motion's first knot, in which it has the state of this plan.
            motion: from there through rest.
            since_ns: what lies before this may be forgotten.
        """
        past = (self.times_ns > since_ns) & (self.times_ns < first_ns)
        times_ns, positions, velocities = (values[past] for values in (self.times_ns, self.positions, self.velocities))
        if self.start_ns <= since_ns < first_ns:
            position, velocity = self.state_at(since_ns)
            times_ns = np.concatenate(([since_ns], times_ns))
            positions, velocities = np.vstack((position, positions)), np.vstack((velocity, velocities))
        step_ns = nanoseconds(motion.step_s)
        return RunningPlan(
            np.concatenate((times_ns, first_ns + step_ns * np.arange(len(motion), dtype=np.int64))),
            np.concatenate((positions, motion.positions)),
            np.concatenate((velocities, motion.velocities)),
        )

    def sampled(self, step_ns: int) -> tuple[int, np.ndarray]:
        """Returns the plan's positions on the grid of multiples of ``step_ns``: the first instant, and (N, J)."""
        first_ns, last_ns = ceil_to_grid(self.start_ns, step_ns), ceil_to_grid(self.end_ns, step_ns)
        return first_ns, self.states_at(np.arange(first_ns, last_ns + 1, step_ns, dtype=np.int64))[0]

    def _derivatives_at(self, times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns positions, velocities and accelerations, (N, J) each."""
        if len(self.positions) == 1:
            positions = np.repeat(self.positions, len(times_ns), axis=0)
            return positions, np.zeros_like(positions), np.zeros_like(positions)
        first_ns, last_ns = self.times_ns[0], self.times_ns[-1]
        k = np.searchsorted(self.times_ns[1:-1], times_ns, side="right")
        begin_ns = self.times_ns[k]
        length_s = ((self.times_ns[k + 1] - begin_ns) / NS_PER_S)[:, None]
        t = ((np.minimum(np.maximum(times_ns, first_ns), last_ns) - begin_ns) / NS_PER_S)[:, None]
        begin, v0, v1 = (
            self.positions.take(k, axis=0),
            self.velocities.take(k, axis=0),
            self.velocities.take(k + 1, axis=0),
        )
        slope = (self.positions.take(k + 1, axis=0) - begin) / length_s
        acceleration = (6.0 * slope - 4.0 * v0 - 2.0 * v1) / length_s
        jerk = (v0 + v1 - 2.0 * slope) * (6.0 / length_s**2)
        change = t * jerk
        positions = begin + t * (v0 + t * (acceleration / 2.0 + change / 6.0))
        velocities = v0 + t * (acceleration + change / 2.0)
        accelerations = acceleration + change
        early, late = times_ns < first_ns, times_ns >= last_ns
        resting = early | late
        if resting.any():
            positions[early], positions[late] = self.positions[0], self.positions[-1]
            velocities[resting] = accelerations[resting] = 0.0
        return positions, velocities, accelerations
