"""The only part that moves the robot: turns chunks into trajectories that controllers accept, and watches.

What is sent keeps every limit and always ends at rest, so a dead executor or a missing chunk stops the arms by itself.
Not thread-safe: one lock of the owner guards it. It needs neither torch nor ROS.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from dit_policy_ros.actions.limits import KINDS, JointLimits
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.runtime.admission import Admission, stale_context
from dit_policy_ros.runtime.executor_config import ExecutorConfig
from dit_policy_ros.runtime.guard import Guard
from dit_policy_ros.runtime.plan import RunningPlan
from dit_policy_ros.runtime.planner import Planner
from dit_policy_ros.runtime.watchdog import FeedbackWatch
from dit_policy_ros.types import ActionChunk, Trajectory, seconds

UNTAKEN_NS = 50_000_000
"""After its end, joints that are measured to move on say that a stop was not taken."""
UNTAKEN_S = 0.01
"""They are that far on their way, in seconds at a joint's speed limit."""


class ExecutorState(Enum):
    """What the executor does with the arms."""

    UNCONFIGURED = "unconfigured"
    INACTIVE = "inactive"
    """Commands nothing."""
    HOLDING = "holding"
    """At rest, waiting for a chunk."""
    MOVING = "moving"
    STOPPING = "stopping"
    """Decelerating to rest."""


@dataclass(frozen=True)
class StateChange:
    """A transition, or a new reason to stay."""

    stamp_ns: int
    before: ExecutorState
    after: ExecutorState
    reason: str


@dataclass(frozen=True)
class Splice:
    """A chunk that took effect."""

    stamp_ns: int
    observation_ns: int
    context_ns: int


class Executor:
    """One robot's executor."""

    def __init__(self, spec: RobotSpec, config: ExecutorConfig | None = None, guards: Sequence[Guard] = ()):
        """Makes an inactive one.

        Args:
            guards: rules about whole motions, such as those of ``safety``; asked in this order.
        """
        self.spec = spec
        self.config = config or ExecutorConfig()
        self.names = spec.names
        self.state = ExecutorState.UNCONFIGURED
        self.reason = ""
        self.epoch = -1
        """Newest epoch seen; chunks of older ones are refused."""
        self.refusals: Counter[str] = Counter()
        """Number of refused chunks by kind."""
        self.interventions: Counter[str] = Counter()
        """Number of chunks whose motion a guard changed, by the guard's name."""
        self.repeated_stops = 0
        """Stops that were sent again because the joints went on with what was planned before."""
        self.position_hits = np.zeros(len(self.names), dtype=np.int64)
        """(J,) waypoints of chunks outside this limit, and pieces of the motion between them; so for those below."""
        self.velocity_hits = np.zeros(len(self.names), dtype=np.int64)
        self.acceleration_hits = np.zeros(len(self.names), dtype=np.int64)
        self.jerk_hits = np.zeros(len(self.names), dtype=np.int64)
        limits = JointLimits(spec.lower, spec.upper, spec.velocity, spec.acceleration, spec.jerk)
        self._planner = Planner(self.names, limits, self.config, guards)
        self._admission = Admission(self.names, spec.velocity, self.config)
        self._columns = tuple([self.names.index(joint) for joint in c.joints] for c in spec.controllers)
        self._changes: deque[StateChange] = deque(maxlen=1024)
        self._splices: deque[Splice] = deque(maxlen=1024)
        self._feedback = FeedbackWatch(spec)
        self._forget()
        self._enter(ExecutorState.INACTIVE, "configured", 0)

    def activate(self, now_ns: int) -> None:
        """Starts to hold, from where the arms are measured to be; commands nothing before the first chunk."""
        self._forget()
        self._feedback.restart()
        self._enter(ExecutorState.HOLDING, "activated", now_ns)

    def deactivate(self, now_ns: int, reason: str = "deactivated") -> tuple[Trajectory, ...]:
        """Stops accepting chunks, and returns the decelerating hold that is still to be sent."""
        sent = self._stop(now_ns) if self.state in (ExecutorState.MOVING, ExecutorState.STOPPING) else ()
        self._pending = None
        self._enter(ExecutorState.INACTIVE, reason, now_ns)
        return sent

    def feedback(self, stamp_ns: int, positions: Mapping[str, float]) -> str:
        """Takes measured joint positions; returns '' or why they are unusable; then the next tick stops."""
        return self._feedback.add(stamp_ns, positions)

    def heard(self, topic: str, stamp_ns: int) -> None:
        """Notes a joint state of one of several topics; each is watched on its own."""
        self._feedback.heard(topic, stamp_ns)

    def accept(self, chunk: ActionChunk, now_ns: int) -> str:
        """Takes a chunk to be spliced in at the next tick; returns '' or the reason of its refusal."""
        reason = self._reject(chunk, now_ns)
        if reason:
            self.refusals[reason.partition(":")[0]] += 1
            return reason
        self.epoch = chunk.epoch
        self._pending = self._admission.ordered(chunk)
        return ""

    def tick(self, now_ns: int, steady_ns: int) -> tuple[Trajectory, ...]:
        """Advances by one control period.

        Args:
            now_ns: ROS clock, which stamps and ages refer to.
            steady_ns: clock of the joint feedback watchdog, never set back.

        Returns:
            One trajectory per controller, in the robot's order, with the same instants; none if nothing is new.
        """
        # A system clock is set back a little now and then; that harms nothing.
        jumped_back = self._last_tick_ns is not None and now_ns < self._last_tick_ns - self._planner.step_ns
        self._last_tick_ns = now_ns
        self._feedback.watch(steady_ns)
        if self.state is ExecutorState.INACTIVE:
            return ()
        if jumped_back:
            return self._start_anew(now_ns)
        if self._feedback.fault:
            self._pending = None
            return self._fault(self._feedback.fault, now_ns)
        if self._hold_owed:
            return self._hold_measured(now_ns)
        if self._pending is not None:
            chunk, self._pending = self._pending, None
            return self._splice(chunk, now_ns)
        return self._watch_motion(now_ns)

    def stop_again(self, now_ns: int) -> tuple[Trajectory, ...]:
        """Returns a stop in place of one that controllers did not take, where the joints say so; to be called per tick.

        A trajectory controller rejects what ended before it arrives, as a short stop does that was held up on its way,
        and goes on with what it has.
        """
        before, measured, stamp_ns = self._before_stop, self._feedback.positions, self._feedback.stamp_ns
        if before is None or measured is None or stamp_ns is None or stamp_ns < self._running.end_ns + UNTAKEN_NS:
            return ()
        if stamp_ns >= before.end_ns:
            self._before_stop = None
            return ()
        onwards, resting = before.state_at(stamp_ns)[0], self._running.positions[-1]
        if not (self._parted(onwards) & (2.0 * np.abs(measured - onwards) < np.abs(measured - resting))).any():
            return ()
        self.repeated_stops += 1
        if self.state is ExecutorState.HOLDING:
            self._enter(ExecutorState.STOPPING, "stop not taken: the arms went on, so it is sent again", now_ns)
        return self._send(self._planner.stop(before, now_ns), now_ns)

    @property
    def doubts_stop(self) -> bool:
        """Whether the joints have not told yet if controllers took the last stop."""
        before, stamp_ns = self._before_stop, self._feedback.stamp_ns
        if before is None:
            return False
        if stamp_ns is None or stamp_ns < self._running.end_ns + UNTAKEN_NS:
            return True
        # Slow joints are where they would be anyway for longer.
        return stamp_ns < before.end_ns and not self._parted(before.state_at(stamp_ns)[0]).any()

    @property
    def plan(self) -> ActionChunk | None:
        """What was and will be executed, on the waypoint grid, up to rest; None before the first command.

        It goes back ``history_s``, since prefixes are asked for from the instant of an observation on.
        """
        if self._running is None:
            return None
        step_ns = self._planner.step_ns
        start_ns, positions = self._running.sampled(step_ns)
        provenance = (self._provenance.observation_ns, self._provenance.context_ns) if self._provenance else (0, 0)
        return ActionChunk(self.names, start_ns, step_ns, positions, *provenance, max(self.epoch, 0))

    def reference(self, now_ns: int) -> np.ndarray | None:
        """Returns where the controllers were told to be now, (J,); None before the first command."""
        return None if self._running is None else self._running.state_at(now_ns)[0]

    def context_age_ns(self, now_ns: int) -> int | None:
        """Returns the age of the observation behind the context of the running plan; None before the first chunk."""
        return None if self._provenance is None else now_ns - self._provenance.context_ns

    def drain_changes(self) -> tuple[StateChange, ...]:
        """Returns and forgets the state changes since the last call, oldest first, 1024 at most."""
        changes = tuple(self._changes)
        self._changes.clear()
        return changes

    def drain_splices(self) -> tuple[Splice, ...]:
        """Returns and forgets the splices since the last call, oldest first, 1024 at most."""
        splices = tuple(self._splices)
        self._splices.clear()
        return splices

    def _forget(self) -> None:
        self._running: RunningPlan | None = None
        self._provenance: ActionChunk | None = None
        self._pending: ActionChunk | None = None
        self._before_stop: RunningPlan | None = None
        """What controllers follow still if they did not take the last stop."""
        self._chunk_end_ns = 0
        self._last_tick_ns: int | None = None
        self._hold_owed = False

    def _reject(self, chunk: ActionChunk, now_ns: int) -> str:
        if self.state is ExecutorState.INACTIVE:
            return "inactive: activate the executor first"
        if self._feedback.invalid or self._feedback.fault or self._feedback.positions is None:
            return self._feedback.invalid or self._feedback.fault or "joint states missing: none received yet"
        reason = self._admission.reject(chunk, now_ns, self.epoch)
        if reason:
            return reason
        if self.state is not ExecutorState.HOLDING:
            newest_ns = self._provenance.observation_ns
            late = chunk.observation_ns < newest_ns and chunk.epoch == self.epoch
            return f"out of order: {seconds(newest_ns - chunk.observation_ns):.3f} s behind the running chunk" * late
        rests = [self._feedback.positions]
        if self._running is not None:
            # A closed gripper around an object rests far from where it was told to be.
            rests.append(self._running.positions[-1])
        return self._admission.reject_jump(self._admission.ordered(chunk), now_ns, tuple(rests))

    def _splice(self, chunk: ActionChunk, now_ns: int) -> tuple[Trajectory, ...]:
        """Follows the running plan until the chunk begins, the chunk to its end, and then decelerates."""
        reason = stale_context(chunk.context_ns, now_ns, self.config)
        running = self._running or RunningPlan.at_rest(now_ns, self._planner.step_ns, self._feedback.positions)
        planned = None if reason else self._planner.follow(running, chunk, now_ns)
        if planned is not None and planned.hits is not None:
            for kind in KINDS:
                getattr(self, f"{kind}_hits")[:] += planned.hits[kind]
        if planned is None or planned.plan is None:
            self.refusals[(reason or planned.reason).partition(":")[0]] += 1
            return self._watch_motion(now_ns)
        if planned.reason:
            self.interventions[planned.reason.partition(":")[0]] += 1
        self._splices.append(Splice(now_ns, chunk.observation_ns, chunk.context_ns))
        self._provenance, self._chunk_end_ns = chunk, planned.chunk_end_ns
        self._enter(ExecutorState.MOVING, planned.reason or "chunk", now_ns)
        self._before_stop = None
        return self._send(planned.plan, now_ns)

    def _stop(self, now_ns: int) -> tuple[Trajectory, ...]:
        """Decelerates from the present motion; what decelerates already is sent again."""
        if self._running is None:
            return ()
        if self.state is ExecutorState.STOPPING:
            return self._send(self._running, now_ns)
        self._before_stop = self._running
        return self._send(self._planner.stop(self._running, now_ns), now_ns)

    def _parted(self, onwards: np.ndarray) -> np.ndarray:
        """Returns which joints of a plan that goes on are elsewhere than those that stopped, (J,) bool."""
        return np.abs(onwards - self._running.positions[-1]) > UNTAKEN_S * self.spec.velocity

    def _start_anew(self, now_ns: int) -> tuple[Trajectory, ...]:
        """After the clock jumped back, what was sent means other instants, and the arms may be anywhere."""
        self._forget()
        self._feedback.restart()
        self._hold_owed, self._last_tick_ns = True, now_ns
        self._enter(ExecutorState.HOLDING, "clock jumped back", now_ns)
        return ()

    def _hold_measured(self, now_ns: int) -> tuple[Trajectory, ...]:
        """Replaces trajectories of another time by a hold, once it is known where the arms are."""
        if self._feedback.positions is None or self._feedback.stamp_ns > now_ns:
            return ()
        self._hold_owed = False
        self._running = RunningPlan.at_rest(now_ns, self._planner.step_ns, self._feedback.positions)
        return self._stop(now_ns)

    def _fault(self, reason: str, now_ns: int) -> tuple[Trajectory, ...]:
        if self.state is ExecutorState.MOVING:
            sent = self._stop(now_ns)
            self._enter(ExecutorState.STOPPING, reason, now_ns)
            return sent
        if self.state is ExecutorState.HOLDING:
            self._enter(ExecutorState.HOLDING, reason, now_ns)
        return self._watch_motion(now_ns)

    def _watch_motion(self, now_ns: int) -> tuple[Trajectory, ...]:
        """Watches context, joints and the end of the plan while moving, and coming to rest while stopping."""
        if self.state is ExecutorState.MOVING:
            reason = stale_context(self._provenance.context_ns, now_ns, self.config)
            reason = reason or self._feedback.off_track(self._running.state_at(self._feedback.stamp_ns)[0])
            if reason:
                return self._fault(reason, now_ns)
            if now_ns > self._chunk_end_ns:
                late_s = seconds(now_ns - self._chunk_end_ns)
                # The deceleration was sent with the chunk already.
                self._enter(ExecutorState.STOPPING, f"out of plan: the last chunk ended {late_s:.3f} s ago", now_ns)
        if self.state is ExecutorState.STOPPING and now_ns >= self._running.end_ns:
            self._enter(ExecutorState.HOLDING, self.reason, now_ns)
        return self.stop_again(now_ns) if self.state is not ExecutorState.MOVING else ()

    def _send(self, plan: RunningPlan, now_ns: int) -> tuple[Trajectory, ...]:
        """Makes this the plan, and encodes what lies ahead for each controller with the same instants."""
        self._running = plan
        ahead = plan.times_ns > now_ns
        if not ahead.any():
            return ()
        times_ns, positions, velocities = plan.times_ns[ahead], plan.positions[ahead], plan.velocities[ahead]
        return tuple(
            Trajectory(controller.joints, times_ns, positions[:, columns], velocities[:, columns])
            for controller, columns in zip(self.spec.controllers, self._columns, strict=True)
        )

    def _enter(self, state: ExecutorState, reason: str, now_ns: int) -> None:
        # A reason's detail after the colon, such as an age, changes all the time.
        if state is self.state and reason.partition(":")[0] == self.reason.partition(":")[0]:
            return
        self._changes.append(StateChange(now_ns, self.state, state, reason))
        self.state, self.reason = state, reason
