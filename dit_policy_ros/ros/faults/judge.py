"""Judges what was published to the controllers. Knows the robot's limits and the controllers' rules, nothing else.

It reads messages and stamps. It shares no code with the executor and does not ask it anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.controllers import Controller
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.sim.controllers import TrajectoryController, TrajectoryControllerConfig
from dit_policy_ros.types import NS_PER_S

SAMPLE_NS = 5_000_000
TOLERANCE = 1e-6
SPEED_SLACK = 1.25
"""A controller's cubic between waypoints may be this much faster than the waypoints themselves."""
PAIR_NS = 500_000_000
CONTROLLER_NS = 20_000_000
JERK_GAIN = 0.03
"""[rad/s]"""
LATE_NS = 200_000_000
"""A listener on a busy machine hears late. Up to this much, controllers are taken to have heard within their period."""


@dataclass(frozen=True)
class Heard:
    """One trajectory message as it was heard on a controller's topic."""

    heard_ns: int
    """Steady clock of the machine when it was published."""
    controller: str
    clock_ns: int
    """The controllers' clock at that time."""
    stamp_ns: int
    names: tuple[str, ...]
    offsets_ns: np.ndarray
    """(K,)."""
    positions: np.ndarray
    """(K, len(names)); of shape (0, 0) where rows did not fit."""
    velocities: np.ndarray

    @property
    def taken_ns(self) -> int:
        """When a controller takes it, on its clock; one that had ended when it was published, then, to reject it."""
        late_ns = self.clock_ns - self.stamp_ns
        if late_ns > LATE_NS or (len(self.offsets_ns) and late_ns > self.offsets_ns[-1]):
            return self.clock_ns
        return min(self.clock_ns, self.stamp_ns + CONTROLLER_NS)

    @property
    def speeds(self) -> np.ndarray:
        """Largest speed of any joint at each waypoint, (K,)."""
        return np.abs(self.velocities).max(axis=1) if self.velocities.size else np.zeros(len(self.offsets_ns))

    @property
    def only_slows(self) -> bool:
        """Whether the motion does nothing but come to rest: the joints together never gain speed.

        One of them may gain a little, where its jerk limit ends an acceleration that was under way.
        """
        if not self.velocities.size:
            return True
        speeds = np.abs(self.velocities)
        together = np.diff(speeds.sum(axis=1))
        return bool((together <= 1e-3).all() and (np.diff(speeds, axis=0) <= JERK_GAIN).all())

    @property
    def slows_from_ns(self) -> int:
        """Instant from which on the motion only slows, on the controllers' clock."""
        gains = np.flatnonzero(np.diff(self.speeds) > 1e-3)
        return self.stamp_ns + int(self.offsets_ns[gains[-1] + 1 if len(gains) else 0])


@dataclass(frozen=True)
class Verdict:
    """What is wrong with what was published. Empty: all was safe."""

    violations: tuple[str, ...]
    messages: int
    largest_speed: float
    """Share of a speed limit that the controllers' reference reached."""


def judge(
    robot: RobotSpec, heard: Sequence[Heard], forbidden: tuple[int, int] | None = None, misled: str = ""
) -> Verdict:
    """Judges all messages of one run.

    Args:
        heard: in the order of arrival, from at least one before the motion of interest on.
        forbidden: from when to when, on the controllers' clock, nothing but slowing down was allowed.
        misled: topic of a controller that heard something else than was published; its reference is not known.
    """
    violations: list[str] = []
    fastest = 0.0
    for controller in robot.controllers:
        mine = [message for message in heard if message.controller == controller.name]
        for message in mine:
            violations += _of_message(robot, controller, message)
            if forbidden and forbidden[0] <= message.clock_ns < forbidden[1] and not message.only_slows:
                late_ms = (message.clock_ns - forbidden[0]) / 1e6
                violations.append(f"{controller.name} was told to speed up {late_ms:.0f} ms after it had to slow down")
        followed, share = ([], 0.0) if controller.topic == misled else _followed(robot, controller, mine, forbidden)
        violations += followed
        fastest = max(fastest, share)
    violations += _of_pairs(robot, heard)
    return Verdict(tuple(violations), len(heard), fastest)


def _limits(robot: RobotSpec, controller: Controller) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns = [robot.names.index(joint) for joint in controller.joints]
    return robot.lower[columns], robot.upper[columns], robot.velocity[columns]


def _of_message(robot: RobotSpec, controller: Controller, message: Heard) -> list[str]:
    """Values of one message against the limits."""
    if message.names != controller.joints:
        return [f"{controller.name} was sent the joints {', '.join(message.names)}"]
    if not message.positions.size or not message.velocities.size:
        return [f"{controller.name} was sent a message of odd sizes"]
    if not (np.isfinite(message.positions).all() and np.isfinite(message.velocities).all()):
        return [f"{controller.name} was sent a value that is not finite"]
    lower, upper, most = _limits(robot, controller)
    found = []
    # A joint that was pushed outside its limits is brought back from there, never farther out.
    start = message.positions[0]
    if (message.positions < np.minimum(lower, start) - TOLERANCE).any():
        found.append(f"{controller.name} was sent a position below its limit")
    if (message.positions > np.maximum(upper, start) + TOLERANCE).any():
        found.append(f"{controller.name} was sent a position above its limit")
    if (np.abs(message.velocities) > most * (1.0 + TOLERANCE)).any():
        found.append(f"{controller.name} was sent a velocity above its limit")
    if np.abs(message.velocities[-1]).max() > TOLERANCE:
        found.append(f"{controller.name} was sent a trajectory that does not end at rest")
    if len(message.offsets_ns) > 1:
        steps_s = np.diff(message.offsets_ns)[:, None] / NS_PER_S
        if (np.abs(np.diff(message.positions, axis=0)) > most * steps_s * (1.0 + 1e-4) + TOLERANCE).any():
            found.append(f"{controller.name} was sent waypoints too far apart for its speed")
    return found


def _followed(
    robot: RobotSpec, controller: Controller, messages: Sequence[Heard], forbidden: tuple[int, int] | None
) -> tuple[list[str], float]:
    """Lets a model of the real controller take the messages, and watches its reference.

    A stop that the controller rejects is none: then the reference goes on, and may not speed up either.
    """
    found: list[str] = []
    lower, upper, most = _limits(robot, controller)
    whole = [message for message in messages if message.positions.size]
    if not whole:
        return found, 0.0
    # What the controller followed before the first message is not known: it is taken to have led there.
    start = whole[0].positions[0]
    model = TrajectoryController(controller.joints, TrajectoryControllerConfig(), start)
    before, fastest, slowest = start, 0.0, np.inf
    for k, message in enumerate(messages):
        rejected = model.accept(
            message.stamp_ns,
            message.names,
            message.offsets_ns,
            message.positions,
            message.velocities,
            (),
            message.taken_ns,
        )
        # A message that comes too late does nothing: that is the rule's purpose.
        if rejected and not rejected.startswith("Ends in the past"):
            found.append(f"{controller.name} would reject a message: {rejected}")
        begin_ns = message.taken_ns
        until_ns = messages[k + 1].taken_ns if k + 1 < len(messages) else begin_ns + NS_PER_S
        for now_ns in range(begin_ns, max(until_ns, begin_ns + 1), SAMPLE_NS):
            position, velocity = model.sample(now_ns)
            if forbidden and forbidden[0] <= now_ns < forbidden[1]:
                speed = float(np.abs(velocity).sum())
                slowest = min(slowest, speed)
                if speed > slowest + JERK_GAIN:
                    found.append(f"{controller.name}'s reference sped up after it had to slow down")
            share = float((np.abs(position - before) / most).max()) * NS_PER_S / SAMPLE_NS
            if now_ns > begin_ns:
                fastest = max(fastest, share)
            if share > SPEED_SLACK and now_ns > begin_ns:
                found.append(f"{controller.name}'s reference moved at {share:.2f} of a speed limit")
            before = position
        out = (before < np.minimum(lower, start) - 1e-3) | (before > np.maximum(upper, start) + 1e-3)
        if out.any():
            found.append(f"{controller.name}'s reference left the position limits")
    return list(dict.fromkeys(found)), fastest


def _of_pairs(robot: RobotSpec, heard: Sequence[Heard]) -> list[str]:
    """Every command went to all controllers with one stamp and the same instants."""
    found = []
    by_stamp: dict[int, dict[str, Heard]] = {}
    for message in heard:
        by_stamp.setdefault(message.stamp_ns, {})[message.controller] = message
    last_ns = heard[-1].heard_ns if heard else 0
    for number, messages in enumerate(by_stamp.values()):
        # The partner of the very first message was heard before, that of the very last one may be on its way still.
        is_inside = number > 0 and last_ns - min(m.heard_ns for m in messages.values()) > PAIR_NS
        if len(messages) < len(robot.controllers) and is_inside:
            found.append(f"only {', '.join(messages)} was sent a command")
        offsets = [message.offsets_ns for message in messages.values()]
        if any(len(offsets[0]) != len(other) or (offsets[0] != other).any() for other in offsets[1:]):
            found.append("the controllers were sent different instants")
    return list(dict.fromkeys(found))
