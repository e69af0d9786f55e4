"""Stands over the executor: says whether anything may move, and why not. A small explicit state machine.

Every motion ends in a deceleration that is sent; while one runs, nothing starts anew. Not thread-safe: one lock or
one thread of the owner guards it. It needs neither torch nor ROS.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from dit_policy_ros.actions.pacing import repaced, slowed
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.runtime.executor import Executor, ExecutorState
from dit_policy_ros.runtime.homing import Homing
from dit_policy_ros.runtime.permission import Permission, Veto
from dit_policy_ros.types import ActionChunk, Trajectory

HOMING_PERIOD_NS = 100_000_000
ABSURD_SHARE = 0.5
"""A joint said to be this share of its range outside of it is a broken sensor, not a joint that was pushed there."""
LEAST_SPEED = 0.02
"""A smaller speed counts as none."""


class State(Enum):
    """What happens with the arms."""

    UNCONFIGURED = "unconfigured"
    INACTIVE = "inactive"
    """Commands nothing, and others may."""
    HOLDING = "holding"
    """At rest where it was told to be."""
    MOVING = "moving"
    STOPPING = "stopping"
    """Decelerating to rest."""
    E_STOPPED = "e-stopped"
    """At rest until an explicit reset."""


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.UNCONFIGURED: frozenset({State.INACTIVE}),
    State.INACTIVE: frozenset({State.HOLDING, State.STOPPING, State.E_STOPPED, State.UNCONFIGURED}),
    State.HOLDING: frozenset({State.MOVING, State.STOPPING, State.INACTIVE, State.E_STOPPED}),
    State.MOVING: frozenset({State.STOPPING, State.HOLDING}),
    State.STOPPING: frozenset({State.MOVING, State.HOLDING, State.INACTIVE, State.E_STOPPED}),
    State.E_STOPPED: frozenset({State.HOLDING, State.STOPPING, State.INACTIVE}),
}
"""State to the states that may follow. From moving to holding leads only a clock or an arm that jumped; from inactive
and e-stopped to stopping only a stop that the controllers did not take."""


@dataclass(frozen=True)
class Change:
    """A transition, or a new reason to stay."""

    stamp_ns: int
    before: State
    after: State
    reason: str


class Supervisor:
    """One robot's supervisor."""

    def __init__(self, spec: RobotSpec, executor: Executor, permission: Permission, shadow: bool = False) -> None:
        """Makes an inactive one.

        Args:
            shadow: nothing will be sent to the controllers, so every chunk is judged as if the arms rested where they
                are measured to be.
        """
        self.spec = spec
        self.executor = executor
        self.permission = permission
        self.shadow = shadow
        self.state = State.UNCONFIGURED
        self.reason = ""
        self.allowed_since_ns = 0
        """Chunks from observations up to here are refused: the arms were elsewhere, or may have been."""
        self.arms = frozenset(joint.arm for joint in spec.joints)
        """Those that are switched on."""
        self._wanted_arms = self.arms
        self._frozen: dict[str, float] = {}
        self._active = False
        self._stopping_ns = 0
        self._last_steady_ns: int | None = None
        self._last_chunk: ActionChunk | None = None
        self._sample: tuple[int, Mapping[str, float]] | None = None
        self._is_new = False
        self._homing: Homing | None = None
        self._wants_home = False
        self._homed_ns = 0
        self._changes: deque[Change] = deque(maxlen=1024)
        self._enter(State.INACTIVE, "configured", 0)

    def activate(self) -> None:
        """Begins to supervise; the next tick holds, or says what forbids it."""
        self.permission.begin()
        self._active, self._last_steady_ns, self._stopping_ns = True, None, 0
        self._last_chunk = self._homing = self._sample = None
        self._wants_home = False

    def deactivate(self, now_ns: int) -> tuple[Trajectory, ...]:
        """Ends supervision; returns the decelerating hold that is still to be sent."""
        sent = self._halt("deactivated", now_ns)
        self._active = False
        return sent

    def finish(self, now_ns: int) -> None:
        """Ends a deactivation: what was to be sent was sent."""
        self._stopping_ns = 0
        self._enter(State.INACTIVE, "deactivated", now_ns)

    def restart(self, now_ns: int) -> None:
        """Forgets the plan at once, where the arms are suddenly elsewhere: what was planned leads from there."""
        if self.executor.state is not ExecutorState.INACTIVE:
            self._homing, self._wants_home = None, False
            self._start_executor(now_ns)

    def feedback(self, stamp_ns: int, positions: Mapping[str, float]) -> str:
        """Takes measured joint positions; returns '' or why they are unusable."""
        positions = {**positions, **self._frozen}
        absurd = self._absurd(positions)
        if absurd:
            self.executor.feedback(stamp_ns, {**positions, absurd: math.nan})
            return f"joint states invalid: {absurd} is {positions[absurd]:g}, far outside its limits; check its sensor"
        self._sample, self._is_new = (stamp_ns, positions), True
        return self.executor.feedback(stamp_ns, positions)

    def accept(self, chunk: ActionChunk, now_ns: int) -> str:
        """Takes a chunk of the policy; returns '' or the reason of its refusal."""
        if self._wants_home or self._homing is not None:
            return "homing: chunks are taken again after it"
        if self.executor.state is ExecutorState.INACTIVE or self.permission.speed <= 0.0:
            return f"inactive: {self.permission.reason() or self.reason}"
        if chunk.observation_ns <= self.allowed_since_ns:
            return "before start: made from an observation before the executor was allowed to move"
        if self.shadow and self._is_new and self.executor.state is not ExecutorState.INACTIVE:
            self.executor.activate(now_ns)
            self.executor.feedback(*self._sample)
            self._is_new = False
        return self._accept(self._frozen_in(slowed(chunk, self.permission.speed)), now_ns)

    def tick(self, now_ns: int, steady_ns: int) -> tuple[Trajectory, ...]:
        """Advances by one control period; returns what is to be sent, see ``Executor.tick``."""
        self.permission.watch(steady_ns)
        last, self._last_steady_ns = self._last_steady_ns, steady_ns
        self._stopping_ns = max(0, self._stopping_ns - max(0, steady_ns - (steady_ns if last is None else last)))
        self._veto_arms()
        forbidden = self.permission.reason()
        is_on = self.executor.state is not ExecutorState.INACTIVE
        if forbidden and self._wants_home and self._may_home():
            forbidden = self._before_home()
        if forbidden and is_on:
            sent = self._halt(forbidden, now_ns)
            self.executor.tick(now_ns, steady_ns)
            self._settle(forbidden, now_ns)
            return sent
        if forbidden or self._stopping_ns > 0:
            self.executor.tick(now_ns, steady_ns)
            again = self.executor.stop_again(now_ns)
            if again:
                self._stopping_ns = int(again[0].times_ns[-1]) - now_ns
                self._enter(State.STOPPING, "stop not taken: the arms went on, so it is sent again", now_ns)
            else:
                self._settle(forbidden or self.reason, now_ns)
            return again
        if not is_on:
            self._start_executor(now_ns)
        self._home(now_ns)
        sent = self.executor.tick(now_ns, steady_ns)
        self._mirror(now_ns)
        return sent

    def start(self) -> str:
        """Allows motion; returns '' or what forbids it."""
        return self.permission.start() if self._active else "inactive: activate the node first"

    def pause(self) -> str:
        """Decelerates and holds until ``start``; returns '' or why there is nothing to pause."""
        if not self._active:
            return "inactive: activate the node first"
        self._homing, self._wants_home = None, False
        self.permission.pause("call start")
        return ""

    def stop(self) -> str:
        """Decelerates, and then commands nothing until ``start``, so that others may; returns as ``pause``."""
        reason = self.pause()
        if not reason:
            self.permission.stop("call start")
        return reason

    def home(self) -> str:
        """Moves home and pauses there; returns '' or why not."""
        if not self.spec.home:
            return f"{self.spec.name} has no home; give its robot YAML one"
        if not self._may_home():
            return self.permission.reason() if self._active else "inactive: activate the node first"
        if self.arms != frozenset(joint.arm for joint in self.spec.joints):
            return "an arm is switched off; switch it on first"
        self.permission.pause("at home, or on the way; call start")
        self._wants_home = True
        return ""

    def set_speed(self, speed: float, now_ns: int) -> str:
        """Sets the share of the speed that chunks ask for, 0..1, also of the one that runs; returns '' or why not."""
        if not 0.0 <= speed <= 1.0:
            return f"speed is {speed:g}; it must be 0..1"
        speed = 0.0 if speed < LEAST_SPEED else speed
        before, self.permission.speed = self.permission.speed, speed
        if speed > 0.0 and before > 0.0 and speed != before and self.state is State.MOVING and self._homing is None:
            rest = repaced(self._last_chunk, now_ns, speed / before) if self._last_chunk else None
            if rest is not None:
                self._accept(rest, now_ns)
        return ""

    def switch_arm(self, arm: str, on: bool) -> str:
        """Switches an arm on or off; both stop meanwhile. Returns '' or why not."""
        if not self._active:
            return "inactive: activate the node first"
        if not any(joint.arm == arm for joint in self.spec.joints):
            return f"{self.spec.name} has no arm '{arm}'"
        sides = {joint.name: joint.arm for joint in self.spec.joints}
        for controller in self.spec.controllers:
            arms = {sides[joint] for joint in controller.joints}
            if arm in arms and len(arms) > 1:
                return f"{controller.name} moves both arms; one alone cannot be switched"
        self._wanted_arms = self._wanted_arms | {arm} if on else self._wanted_arms - {arm}
        return ""

    def mutes(self, joints: Sequence[str]) -> bool:
        """Whether a controller of these joints must not be sent anything."""
        return all(joint.arm not in self.arms for joint in self.spec.joints if joint.name in joints)

    def drain_changes(self) -> tuple[Change, ...]:
        """Returns and forgets the changes since the last call, oldest first, 1024 at most."""
        changes = tuple(self._changes)
        self._changes.clear()
        return changes

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is decelerating any more, as of the last tick."""
        return self._stopping_ns == 0 and self.state is not State.MOVING

    def _accept(self, chunk: ActionChunk, now_ns: int) -> str:
        reason = self.executor.accept(chunk, now_ns)
        if not reason:
            self._last_chunk = chunk
        return reason

    def _frozen_in(self, chunk: ActionChunk) -> ActionChunk:
        """The chunk with the joints of switched-off arms held where they are."""
        held = [name for name in chunk.names if name in self._frozen]
        if not held or not np.isfinite(chunk.actions).all() or chunk.actions.shape[-1:] != (len(chunk.names),):
            return chunk
        actions = chunk.actions.copy()
        for name in held:
            actions[:, chunk.names.index(name)] = self._frozen[name]
        return replace(chunk, actions=actions)

    def _absurd(self, positions: Mapping[str, float]) -> str:
        """Returns the first joint that cannot be where it is said to be, '' for none."""
        for joint in self.spec.joints:
            slack = ABSURD_SHARE * (joint.upper - joint.lower)
            if not joint.lower - slack <= positions.get(joint.name, joint.lower) <= joint.upper + slack:
                return joint.name
        return ""

    def _veto_arms(self) -> None:
        """Switching waits for rest: the frozen joints of the executor must not be moving."""
        is_on = self.executor.state is not ExecutorState.INACTIVE
        if self._wanted_arms != self.arms and not is_on and self._stopping_ns == 0:
            self.arms = self._wanted_arms
        vetoes = self.permission.arm_vetoes
        vetoes.clear()
        if self._wanted_arms != self.arms:
            vetoes[Veto.SWITCHING] = "waits for rest"
        if not self.arms:
            vetoes[Veto.ARMS] = "every arm is switched off; switch one on"

    def _start_executor(self, now_ns: int) -> None:
        measured = self._sample[1] if self._sample else {}
        self._frozen = {
            joint.name: float(np.clip(measured.get(joint.name, joint.lower), joint.lower, joint.upper))
            for joint in self.spec.joints
            if joint.arm not in self.arms
        }
        self.allowed_since_ns = now_ns
        self._last_chunk = None
        self.executor.drain_changes()
        # What was measured before says little about where the arms are now.
        self._sample, self._is_new = None, False
        self.executor.activate(now_ns)

    def _halt(self, reason: str, now_ns: int) -> tuple[Trajectory, ...]:
        """Decelerates from the present motion and switches the executor off."""
        self._homing, self._last_chunk = None, None
        self._wants_home = self._wants_home and self._may_home()
        if self.executor.state is ExecutorState.INACTIVE:
            return ()
        sent = self.executor.deactivate(now_ns, reason)
        self._stopping_ns = max((int(trajectory.times_ns[-1]) - now_ns for trajectory in sent), default=0)
        if sent or self.state is State.MOVING:
            self._enter(State.STOPPING, reason, now_ns)
        return sent

    def _settle(self, reason: str, now_ns: int) -> None:
        """Enters the state that a stop ends in."""
        if self._stopping_ns > 0:
            self._enter(State.STOPPING, reason, now_ns)
            return
        vetoes = self.permission.vetoes()
        if Veto.E_STOP in vetoes:
            self._enter(State.E_STOPPED, reason, now_ns)
        elif Veto.STOPPED in vetoes or Veto.COMMANDER in vetoes or not self._active:
            self._enter(State.INACTIVE, reason, now_ns)
        else:
            self._enter(State.HOLDING, reason, now_ns)

    def _may_home(self) -> bool:
        return self._active and not self.permission.vetoes().keys() - {Veto.PAUSED}

    def _before_home(self) -> str:
        """What the policy began is stopped first."""
        return "homing" if self._homing is None and self.executor.state is ExecutorState.MOVING else ""

    def _home(self, now_ns: int) -> None:
        """Feeds the way home, several times a second."""
        if not self._wants_home:
            return
        if self._homing is None:
            if self._sample is None or self.executor.state is not ExecutorState.HOLDING:
                return
            start = np.array([self._sample[1].get(name, np.nan) for name in self.spec.names])
            if not np.isfinite(start).all():
                return
            goal = np.array([self.spec.home[name] for name in self.spec.names])
            self._homing = Homing(start, goal, self.spec.velocity, self.spec.acceleration)
        elif self._homing.is_over or self.executor.state is not ExecutorState.MOVING:
            is_over, self._homing, self._wants_home = self._homing.is_over, None, False
            self.permission.pause("at home; call start" if is_over else f"not home: {self.executor.reason}; call home")
            return
        elif now_ns - self._homed_ns < HOMING_PERIOD_NS:
            return
        self._homed_ns = now_ns
        chunk = self._homing.chunk(self.spec.names, now_ns, self.executor.epoch, self.permission.speed)
        refused = self.executor.accept(chunk, now_ns)
        if refused:
            self._homing, self._wants_home = None, False
            self.permission.pause(f"not home: {refused}; call home")

    def _mirror(self, now_ns: int) -> None:
        """Follows what the executor did, step by step; in shadow, where it begins anew with every chunk, at the end."""
        changes = self.executor.drain_changes()
        for change in changes[-1:] if self.shadow else changes:
            if change.after is not ExecutorState.INACTIVE:
                self._enter(State[change.after.name], change.reason, change.stamp_ns)

    def _enter(self, state: State, reason: str, now_ns: int) -> None:
        # A reason's detail after the colon, such as an age, changes all the time.
        if state is self.state and reason.partition(":")[0] == self.reason.partition(":")[0]:
            return
        if state is not self.state and state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"No transition leads from {self.state.value} to {state.value}: {reason}")
        self._changes.append(Change(now_ns, self.state, state, reason))
        self.state, self.reason = state, reason
