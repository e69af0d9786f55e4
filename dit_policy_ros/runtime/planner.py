"""From the running plan to the next one: what follows a chunk, or stops, inside every limit.

Every plan that leaves here begins as the running one goes on, was checked to its end, and ends at rest. So whatever
happens later, going on with the running plan is allowed, and comes to rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.actions.grid import ceil_to_grid, floor_to_grid
from dit_policy_ros.actions.limiter import Limited, limit_motion, rested
from dit_policy_ros.actions.limits import JointLimits, within
from dit_policy_ros.actions.motion import Motion, through
from dit_policy_ros.actions.resample import resample
from dit_policy_ros.actions.slowing import LEAST_SPEED, slower, speed_within
from dit_policy_ros.actions.stop import stays_inside, stops
from dit_policy_ros.runtime.executor_config import ExecutorConfig
from dit_policy_ros.runtime.guard import Finding, Guard
from dit_policy_ros.runtime.plan import RunningPlan
from dit_policy_ros.types import NS_PER_S, ActionChunk, nanoseconds

_PAST_STEPS = 8
"""How far back waypoints matter for the spline through them: their influence falls by 0.27 per step."""
_SLOWDOWNS = 6
_CUTS = 8
_NONSENSE = 1e9
"""Larger actions only make arithmetic overflow."""
_LATER_STEPS = 8


@dataclass(frozen=True)
class Planned:
    """A new plan, or why there is none."""

    plan: RunningPlan | None
    reason: str = ""
    """Why the chunk was refused, or which guard changed the motion."""
    chunk_end_ns: int = 0
    """When the plan's own way to rest begins."""
    hits: dict[str, np.ndarray] | None = None
    """See ``Limited``."""


@dataclass(frozen=True)
class _Wanted:
    """Waypoints of a chunk around the instant at which it takes over."""

    past: np.ndarray
    """(P, J) up to that instant."""
    future: np.ndarray
    """(N, J) the steps after it."""


class Planner:
    """Plans for one robot."""

    def __init__(self, names: tuple[str, ...], limits: JointLimits, config: ExecutorConfig, guards: Sequence[Guard]):
        self.names, self.limits, self.config, self.guards = names, limits, config, tuple(guards)
        self.step_ns = nanoseconds(config.waypoint_s)
        self._step_s = self.step_ns / NS_PER_S
        self._fine_ns = max(1, self.step_ns // 20)
        self._lead_ns = max(nanoseconds(config.lead_s), self._fine_ns)

    def follow(self, running: RunningPlan, chunk: ActionChunk, now_ns: int) -> Planned:
        """Follows the running plan until the chunk begins, the chunk to its end, and comes to rest."""
        first_ns = ceil_to_grid(now_ns + self._lead_ns, self.step_ns)
        wanted = self._wanted(running, chunk, first_ns)
        if wanted is None:
            return Planned(None, "stale chunk: it passed while it waited")
        start, otherwise = self._going_on(running, first_ns)
        room = self.limits if self._surely_inside(otherwise) else self._room(running, first_ns)
        limited = limit_motion(self.limits, start, wanted.past, wanted.future, self._is_strict(), otherwise, room)
        hits, future = limited.hits, wanted.future
        reason = self._objection(limited, "refuse")
        if not reason and self._objection(limited, "slow"):
            reason = self._objection(limited, "slow")
            future, limited = self._slowed(start, wanted, None)
            reason = "" if limited is not None else reason
        if not reason and not limited.feasible.all() and self._is_strict():
            limited = limit_motion(self.limits, start, wanted.past, future, False, otherwise, room)
        if not reason and not limited.feasible.all():
            reason = f"limit: no motion for {self.names[int(np.argmin(limited.feasible))]} stays inside the limits"
        if reason:
            return Planned(None, reason, hits=hits)
        motion, note = self._guarded(start, wanted, limited.motion, room)
        if motion is None:
            return Planned(None, note, hits=hits)
        plan = running.continued(first_ns, motion, self._history_ns(now_ns))
        end_ns = min(first_ns + self.step_ns * len(future), plan.end_ns)
        return Planned(plan, note, end_ns, hits)

    def stop(self, running: RunningPlan, now_ns: int) -> RunningPlan:
        """Brings every joint to rest as soon as the limits allow; at worst that is the end of the running plan."""
        soon_ns = ceil_to_grid(now_ns + self._lead_ns, self._fine_ns)
        start = running.motion_at(np.array([soon_ns], dtype=np.int64), self.step_ns)
        limits = self._room(running, soon_ns)
        whole = rested(limits, start).trimmed()
        if within(limits, whole).all():
            return running.continued(soon_ns, whole, self._history_ns(now_ns))
        first_ns = ceil_to_grid(now_ns + self._lead_ns, self.step_ns)
        if not running.follows_grid(first_ns, self.step_ns) or running.end_ns <= first_ns:
            return running
        count = (running.end_ns - first_ns) // self.step_ns + 1
        instants_ns = first_ns + self.step_ns * np.arange(count, dtype=np.int64)
        motion = _stopped_when_possible(limits, running.motion_at(instants_ns, self.step_ns))
        return running.continued(first_ns, motion, self._history_ns(now_ns))

    def _wanted(self, running: RunningPlan, chunk: ActionChunk, first_ns: int) -> _Wanted | None:
        end_ns = min(chunk.end_ns, first_ns + nanoseconds(self.config.max_horizon_s))
        count = (end_ns - first_ns) // self.step_ns
        if count < 1:
            return None
        instants_ns = first_ns + self.step_ns * np.arange(-_PAST_STEPS, count + 1, dtype=np.int64)
        if chunk.start_ns <= first_ns:
            instants_ns = instants_ns[instants_ns >= chunk.start_ns]
        new = instants_ns >= chunk.start_ns
        waypoints = np.empty((len(instants_ns), len(self.names)))
        if not new.all():
            waypoints[~new] = running.states_at(instants_ns[~new])[0]
        sane = np.minimum(np.maximum(chunk.actions, -_NONSENSE), _NONSENSE)
        waypoints[new] = resample(chunk.times_ns, sane, instants_ns[new], self.config.resampling)
        here = int((first_ns - instants_ns[0]) // self.step_ns)
        return _Wanted(waypoints[: here + 1], waypoints[here + 1 :])

    def _going_on(self, running: RunningPlan, first_ns: int) -> tuple[Motion, Motion | None]:
        """Returns the running plan's state at an instant, and from there through rest where it is on that grid."""
        if not running.follows_grid(first_ns, self.step_ns):
            return running.motion_at(np.array([first_ns], dtype=np.int64), self.step_ns), None
        instants_ns = np.arange(first_ns, max(first_ns, running.end_ns) + 1, self.step_ns, dtype=np.int64)
        onwards = running.motion_at(instants_ns, self.step_ns)
        return onwards[:1], onwards

    def _surely_inside(self, motion: Motion | None) -> bool:
        """Whether the Bezier points of a motion are inside the position limits; then it is, which is found at once."""
        if motion is None:
            return False
        reach = np.abs(motion.velocities) * (self._step_s / 3.0)
        highest, lowest = motion.positions + reach, motion.positions - reach
        return bool((highest <= self.limits.upper).all() and (lowest >= self.limits.lower).all())

    def _room(self, running: RunningPlan, from_ns: int) -> JointLimits:
        """The limits, and what lies outside of them that the running plan will pass on its way back inside."""
        return self.limits.including(*running.reach(from_ns))

    def _is_strict(self) -> bool:
        """Whether some limit must not be kept by leaving the path."""
        modes = (self.config.velocity_mode, self.config.acceleration_mode, self.config.jerk_mode)
        return any(mode != "clamp" for mode in modes)

    def _objection(self, limited: Limited, mode: str) -> str:
        """Returns '' unless the chunk exceeds a limit with this mode, else which."""
        if limited.unchanged.all():
            return ""
        for kind, count in limited.hits.items():
            exceeding = (count > 0) & ~limited.unchanged
            if getattr(self.config, f"{kind}_mode") == mode and exceeding.any():
                return f"limit: {self.names[int(np.argmax(exceeding))]} would exceed its {kind} limit"
        return ""

    def _slowed(self, start: Motion, wanted: _Wanted, speed: float | None) -> tuple[np.ndarray, Limited | None]:
        """Returns waypoints on the same path and a motion through them, None where slowing does not help.

        Args:
            speed: where to begin, None to begin with the joints' limits.
        """
        path = through(np.concatenate((wanted.past, wanted.future)), self._step_s)[len(wanted.past) - 1 :]
        speed = 0.98 * speed_within(self.limits, path) if speed is None else speed
        for _ in range(_SLOWDOWNS):
            future = slower(path, max(speed, LEAST_SPEED))
            limited = limit_motion(self.limits, start, wanted.past, future, exact=True)
            if not self._objection(limited, "slow") and limited.feasible.all():
                return future, limited
            if speed <= LEAST_SPEED:
                break
            speed *= 0.75
        return wanted.future, None

    def _guarded(self, start: Motion, wanted: _Wanted, motion: Motion, room: JointLimits) -> tuple[Motion | None, str]:
        """Returns a motion that every guard allows, and '' or the objection that changed or forbade it."""
        note = ""
        for _ in range(_SLOWDOWNS):
            guard, finding = self._first_finding(motion)
            if guard is None:
                return motion, note
            note = f"{guard.name}: {finding.text}"
            if guard.mode == "refuse":
                return None, note
            if guard.mode == "stop" or finding.speed >= 1.0:
                return self._cut(motion, finding.knot, room), note
            _, limited = self._slowed(start, wanted, 0.95 * finding.speed)
            if limited is None:
                return self._cut(motion, finding.knot, room), note
            motion = limited.motion
        return None, note

    def _first_finding(self, motion: Motion) -> tuple[Guard | None, Finding | None]:
        for guard in self.guards:
            finding = guard.check(motion)
            if finding is not None:
                return guard, finding
        return None, None

    def _cut(self, motion: Motion, knot: int, room: JointLimits) -> Motion | None:
        """Returns the motion up to a knot from which it can stop ahead of ``knot``; None where there is none."""
        last = min(knot, len(motion) - 1)
        for share in np.linspace(1.0, 0.0, _CUTS):
            stopping = rested(room, motion[: round(last * share) + 1])
            if within(room, stopping).all() and self._first_finding(stopping)[0] is None:
                return stopping
        return None

    def _history_ns(self, now_ns: int) -> int:
        return floor_to_grid(now_ns, self.step_ns) - floor_to_grid(nanoseconds(self.config.history_s), self.step_ns)


def _stopped_when_possible(limits: JointLimits, motion: Motion) -> Motion:
    """Returns the motion with every joint stopped from the first knot from which it can stop inside the limits."""
    early = motion[:_LATER_STEPS]
    states = (early.positions, early.velocities, early.accelerations)
    possible = stays_inside(limits, stops(limits, *states[1:], motion.step_s), *states, motion.step_s)
    knots, joints = np.argmax(possible, axis=0), np.flatnonzero(possible.any(axis=0))
    begin = Motion(motion.step_s, *(values[knots, np.arange(len(knots))][None] for values in states))
    held = rested(limits, begin)
    count = max(len(motion), _LATER_STEPS + len(held))
    kept, held = motion.padded(count), held.padded(count)
    parts = [part.copy() for part in (kept.positions, kept.velocities, kept.accelerations)]
    for joint in joints:
        for part, stop in zip(parts, (held.positions, held.velocities, held.accelerations), strict=True):
            part[knots[joint] :, joint] = stop[: count - knots[joint], joint]
    stopped = Motion(motion.step_s, *parts)
    # What does not pass goes on as it was, which did.
    passes = within(limits, stopped)
    return Motion(
        motion.step_s,
        np.where(passes, stopped.positions, kept.positions),
        np.where(passes, stopped.velocities, kept.velocities),
        np.where(passes, stopped.accelerations, kept.accelerations),
    ).trimmed()
