"""A trajectory controller with the acceptance rules and interpolation of ros2_controllers' JointTrajectoryController.

The rules are those of Jazzy and Kilted, for a controller with position command interfaces: what a real controller
would reject is rejected here, what it would jump to is jumped to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.sim.interpolation import State, interpolate
from dit_policy_ros.types import Trajectory

_FLOAT32_EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class TrajectoryControllerConfig:
    """The parameters of the real controller that change what it accepts or where it goes. Defaults are its own."""

    interpolate_from_desired_state: bool = True
    """Bridge to the first point from the running reference; False: from the measured state.
    The real default is False; True is what its documentation asks for where one motion spans many messages."""
    allow_partial_joints_goal: bool = False
    allow_nonzero_velocity_at_trajectory_end: bool = False
    """True on Humble."""


@dataclass(frozen=True)
class _Goal:
    """An accepted trajectory in the controller's joint order."""

    stamp_ns: int
    """0: starts when it is first sampled."""
    offsets_ns: np.ndarray
    """(K,) int64."""
    points: tuple[State, ...]


class TrajectoryController:
    """Follows one trajectory at a time, and holds its last point."""

    def __init__(self, joints: tuple[str, ...], config: TrajectoryControllerConfig, start: np.ndarray):
        """Starts holding.

        Args:
            joints: the controller's joints, in its order.
            start: (len(joints),) positions to hold.
        """
        self.joints = joints
        self.config = config
        self.accepted = 0
        self.rejections: Counter[str] = Counter()
        """Number of rejected messages by the first clause of the reason."""
        self.last_rejection = ""
        self.reset(start)

    @property
    def rejected(self) -> int:
        """Number of rejected messages."""
        return sum(self.rejections.values())

    def reset(self, start: np.ndarray) -> None:
        """Forgets the trajectory and holds ``start``, (len(joints),). The counters go on."""
        zeros = np.zeros(len(self.joints))
        self._reference = State(np.array(start, dtype=np.float64), zeros, zeros)
        self._measured = self._reference
        self._sampled_ns: int | None = None
        self._goal: _Goal | None = None
        self._before: tuple[int, State] | None = None

    def feedback(self, positions: np.ndarray, velocities: np.ndarray) -> None:
        """Tells the measured state, (len(joints),) each; used where the bridge starts from it."""
        self._measured = State(np.array(positions, dtype=np.float64), np.array(velocities, dtype=np.float64), None)

    def follow(self, trajectory: Trajectory, now_ns: int) -> str:
        """Accepts a trajectory as if sent with the stamp of its first waypoint; returns as ``accept`` does."""
        stamp_ns = int(trajectory.times_ns[0]) if len(trajectory.times_ns) else 0
        velocities = () if trajectory.velocities is None else trajectory.velocities
        offsets_ns = np.asarray(trajectory.times_ns, dtype=np.int64) - stamp_ns
        return self.accept(stamp_ns, trajectory.names, offsets_ns, trajectory.positions, velocities, (), now_ns)

    def accept(
        self,
        stamp_ns: int,
        names: Sequence[str],
        offsets_ns: Sequence[int] | np.ndarray,
        positions: Sequence[Sequence[float]] | np.ndarray,
        velocities: Sequence[Sequence[float]] | np.ndarray,
        accelerations: Sequence[Sequence[float]] | np.ndarray,
        now_ns: int,
        efforts: Sequence[Sequence[float]] = (),
    ) -> str:
        """Takes a trajectory message apart, and follows it from the next sample on if it is valid.

        Args:
            stamp_ns: header stamp; 0 means "start now".
            names: joint names, in any order.
            offsets_ns: (K,) time from start of each point.
            positions: K rows of len(names).
            velocities: K rows of len(names) or of nothing; empty where no point has velocities.
            accelerations: as the velocities.
            now_ns: the controller's clock.
            efforts: as the velocities; a controller without effort interface rejects any.

        Returns:
            "" if accepted, else why not.
        """
        rows = tuple(_rows(field, len(offsets_ns)) for field in (positions, velocities, accelerations))
        reason = self._reject_names(names) or self._reject_points(stamp_ns, names, offsets_ns, rows, now_ns, efforts)
        if reason:
            self.rejections[reason.partition(":")[0]] += 1
            self.last_rejection = reason
            return reason
        points = self._ordered(names, rows)
        self._goal = _Goal(int(stamp_ns), np.asarray(offsets_ns, dtype=np.int64), points)
        self._before = None
        self.accepted += 1
        return ""

    def sample(self, now_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the desired positions and velocities of ``joints`` at now, (len(joints),) each.

        To be called once per control period; the first call after ``accept`` fixes where the bridge to the first
        point begins, and the start of a trajectory with stamp 0.
        """
        if self._goal is not None:
            self._reference = self._follow(self._goal, now_ns)
        self._sampled_ns = now_ns
        return self._reference.positions.copy(), self._reference.velocities.copy()

    def _follow(self, goal: _Goal, now_ns: int) -> State:
        if self._before is None:
            self._before = self._bridge_start(now_ns)
            if goal.stamp_ns == 0:
                goal = self._goal = _Goal(now_ns, goal.offsets_ns, goal.points)
        before_ns, before = self._before
        elapsed_ns = now_ns - goal.stamp_ns
        if now_ns < before_ns:
            return self._reference
        following = int(np.searchsorted(goal.offsets_ns, elapsed_ns, side="right"))
        if following == len(goal.points):
            zeros = np.zeros(len(self.joints))
            return State(goal.points[-1].positions, zeros, zeros)
        end_ns = int(goal.offsets_ns[following])
        if following == 0:
            start_ns, start = before_ns - goal.stamp_ns, before
        else:
            start_ns, start = int(goal.offsets_ns[following - 1]), goal.points[following - 1]
        return interpolate(start_ns, start, end_ns, goal.points[following], elapsed_ns)

    def _bridge_start(self, now_ns: int) -> tuple[int, State]:
        if not self.config.interpolate_from_desired_state:
            return now_ns, self._measured
        sampled_ns = self._sampled_ns
        return (now_ns if sampled_ns is None else min(sampled_ns, now_ns)), self._reference

    def _reject_names(self, names: Sequence[str]) -> str:
        if len(names) == 0:
            return "Empty joint names"
        unknown = [name for name in names if name not in self.joints]
        if unknown:
            return f"Unknown joints: {', '.join(unknown)} are not among {', '.join(self.joints)}"
        if len(set(names)) != len(names):
            return f"Joint named twice: got {', '.join(names)}"
        missing = [name for name in self.joints if name not in names]
        if missing and not self.config.allow_partial_joints_goal:
            return f"Missing joints: {', '.join(missing)}; partial goals are not allowed"
        return ""

    def _reject_points(
        self,
        stamp_ns: int,
        names: Sequence[str],
        offsets_ns: Sequence[int] | np.ndarray,
        rows: tuple[Sequence, Sequence, Sequence],
        now_ns: int,
        efforts: Sequence[Sequence[float]],
    ) -> str:
        positions, velocities, accelerations = rows
        if len(offsets_ns) == 0:
            return "Empty trajectory"
        for what, field, may_be_empty in (
            ("positions", positions, False),
            ("velocities", velocities, True),
            ("accelerations", accelerations, True),
        ):
            reason = _reject_field(what, field, len(offsets_ns), len(names), may_be_empty)
            if reason:
                return reason
        if any(len(effort) for effort in efforts):
            return "Effort is not supported: the controller has no effort command interface"
        if not self.config.allow_nonzero_velocity_at_trajectory_end:
            last = np.asarray(velocities[-1], dtype=np.float64)
            moving = [name for name, v in zip(names, last, strict=False) if abs(v) > _FLOAT32_EPSILON]
            if moving:
                return f"Last velocity is not zero: joints {', '.join(moving)}"
        if stamp_ns != 0 and stamp_ns + int(offsets_ns[-1]) < now_ns:
            return f"Ends in the past: {(now_ns - stamp_ns - int(offsets_ns[-1])) * 1e-9:.3f} s ago"
        if len(offsets_ns) > 1 and int(np.min(np.diff(np.asarray(offsets_ns, dtype=np.int64)))) <= 0:
            return "Time from start is not strictly increasing"
        return ""

    def _ordered(self, names: Sequence[str], rows: tuple[Sequence, Sequence, Sequence]) -> tuple[State, ...]:
        """Points in the controller's order; joints that a partial goal leaves out stay at the reference."""
        indices = [self.joints.index(name) for name in names]
        positions = np.repeat(self._reference.positions[None], len(rows[0]), axis=0)
        positions[:, indices] = rows[0]
        velocities, accelerations = (self._spread(indices, field) for field in rows[1:])
        return tuple(State(*point) for point in zip(positions, velocities, accelerations, strict=True))

    def _spread(self, indices: list[int], rows: Sequence) -> Sequence[np.ndarray | None]:
        """Rows in the controller's order, None where a point has none."""
        filled = [i for i, row in enumerate(rows) if len(row)]
        values = np.zeros((len(rows), len(self.joints)))
        if filled:
            values[np.ix_(filled, indices)] = [rows[i] for i in filled]
        return values if len(filled) == len(rows) else [values[i] if i in filled else None for i in range(len(rows))]


def _rows(field: Sequence | np.ndarray | None, count: int) -> Sequence:
    """One row per point, empty rows where the field is absent altogether."""
    return [()] * count if field is None or len(field) == 0 else field


def _reject_field(what: str, rows: Sequence, count: int, width: int, may_be_empty: bool) -> str:
    if len(rows) != count:
        return f"Wrong number of {what}: {len(rows)} for {count} points"
    filled = [row for row in rows if len(row) or not may_be_empty]
    for row in filled:
        if len(row) != width:
            return f"Wrong size of {what}: a point has {len(row)} for {width} joints"
    if not np.isfinite(np.asarray(filled, dtype=np.float64)).all():
        return f"Not finite: a value in {what} is NaN or infinite"
    return ""
