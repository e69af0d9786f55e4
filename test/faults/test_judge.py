"""The judge finds what it must find, and nothing in what is right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros.faults.clock_line import ClockLine
from dit_policy_ros.ros.faults.judge import Heard, judge

ROBOT = load_robot("aloha")
MS = 1_000_000
COUNT = 20


def pair(clock_ns: int, speed: float = 0.5, start: float = 0.2) -> list[Heard]:
    """One command of both arms: joints move at ``speed``, then rest; grippers stay."""
    messages = []
    for controller in ROBOT.controllers:
        share = np.array([0.0 if "gripper" in joint else 1.0 for joint in controller.joints])
        velocities = np.full(COUNT, speed)[:, None] * share
        velocities[-8:] *= np.linspace(1.0, 0.0, 8)[:, None]
        positions = np.where(share > 0.0, start, 0.2) + np.cumsum(velocities * 0.02, axis=0) - velocities * 0.01
        offsets_ns = 20 * MS * (1 + np.arange(COUNT))
        names = controller.joints
        messages.append(Heard(clock_ns, controller.name, clock_ns, clock_ns, names, offsets_ns, positions, velocities))
    return messages


def right() -> list[Heard]:
    """Two commands, the second of which goes on where the first one is by then."""
    first = pair(10_000 * MS)
    second = pair(10_200 * MS, start=float(first[0].positions[9, 0]))
    return first + second


def test_what_is_right_is_found_right():
    verdict = judge(ROBOT, right())
    assert verdict.violations == ()
    assert 0.1 < verdict.largest_speed < 0.3
    assert judge(ROBOT, []).violations == ()


def spoilt(change) -> list[Heard]:
    heard = right()
    heard[2] = change(heard[2])
    return heard


def with_position(value: float):
    def change(message: Heard) -> Heard:
        positions = message.positions.copy()
        positions[5, 2] = value
        return replace(message, positions=positions)

    return change


def fast(message: Heard) -> Heard:
    return replace(message, velocities=message.velocities * 20.0)


def unfinished(message: Heard) -> Heard:
    velocities = message.velocities.copy()
    velocities[-1] = 0.1
    return replace(message, velocities=velocities)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_position(np.nan), "not finite"),
        (with_position(np.inf), "not finite"),
        (with_position(9.0), "above its limit"),
        (with_position(-9.0), "below its limit"),
        (with_position(1.2), "too far apart"),
        (fast, "velocity above"),
        (unfinished, "does not end at rest"),
        (lambda message: replace(message, names=("nobody", *message.names[1:])), "was sent the joints"),
        (lambda message: replace(message, positions=np.zeros((0, 0))), "odd sizes"),
        (lambda message: replace(message, offsets_ns=message.offsets_ns[::-1]), "would reject"),
        (lambda message: replace(message, offsets_ns=message.offsets_ns + 1), "different instants"),
    ],
)
def test_what_is_wrong_with_a_message_is_named(change, says: str):
    assert any(says in violation for violation in judge(ROBOT, spoilt(change)).violations)


def test_a_jump_between_two_commands_is_seen_in_the_reference():
    heard = pair(10_000 * MS) + [replace(m, positions=m.positions + 0.8) for m in pair(10_200 * MS)]
    assert any("reference moved" in violation for violation in judge(ROBOT, heard).violations)


def test_of_a_misled_controller_every_message_is_judged_but_not_its_reference():
    heard = pair(10_000 * MS) + [replace(m, positions=m.positions + 0.8) for m in pair(10_200 * MS)]
    topics = [controller.topic for controller in ROBOT.controllers]
    violations = judge(ROBOT, heard, misled=topics[0]).violations
    assert any("right_arm_controller's reference" in violation for violation in violations)
    assert not any("left_arm_controller's reference" in violation for violation in violations)
    wrong = judge(ROBOT, spoilt(with_position(np.nan)), misled=topics[0]).violations
    assert any("not finite" in violation for violation in wrong)


def test_half_a_command_is_found():
    heard = right() + pair(12_000 * MS)
    del heard[2]
    assert any("only right_arm_controller" in violation for violation in judge(ROBOT, heard).violations)


def test_speeding_up_where_only_slowing_is_allowed_is_found():
    assert judge(ROBOT, right(), (10_300 * MS, 11_000 * MS)).violations == ()
    gaining = [replace(m, velocities=m.velocities * np.linspace(0, 1, COUNT)[:, None]) for m in pair(10_200 * MS)]
    heard = pair(10_000 * MS) + [replace(m, positions=m.positions + 0.09) for m in gaining]
    assert any("told to speed up" in v for v in judge(ROBOT, heard, (10_100 * MS, 11_000 * MS)).violations)


def test_a_message_that_comes_too_late_is_no_harm():
    heard = right()
    late = [replace(message, clock_ns=message.clock_ns + 2000 * MS) for message in pair(10_400 * MS)]
    assert judge(ROBOT, heard + late).violations == ()


@pytest.mark.parametrize(("late_ms", "is_stop"), [(10, True), (100, False)])
def test_a_stop_that_had_ended_when_it_was_published_stops_nothing(late_ms: int, is_stop: bool):
    ramp = np.concatenate([np.linspace(0.2, 1.0, 12), np.linspace(1.0, 0.0, 8)])[:, None]
    plan = [replace(m, velocities=0.5 * ramp * (m.velocities > 0.0)) for m in pair(10_000 * MS)]
    plan = [replace(m, positions=0.2 + np.cumsum(m.velocities * 0.02, axis=0)) for m in plan]
    stamp_ns, offsets_ns = 10_100 * MS, MS * np.array([5, 25, 45])
    stop = [
        replace(
            m,
            clock_ns=stamp_ns + late_ms * MS,
            stamp_ns=stamp_ns,
            offsets_ns=offsets_ns,
            positions=m.positions[4] + m.velocities[4] * np.cumsum([[0.005], [0.015], [0.005]], axis=0),
            velocities=m.velocities[4] * np.array([[1.0], [0.5], [0.0]]),
        )
        for m in plan
    ]
    violations = judge(ROBOT, plan + stop, (stamp_ns + 30 * MS, 10_900 * MS)).violations
    assert any("reference sped up" in violation for violation in violations) != is_stop


def test_when_a_motion_only_slows_is_read_from_the_message():
    message = pair(10_000 * MS)[0]
    assert not replace(message, velocities=message.velocities * np.linspace(0, 1, COUNT)[:, None]).only_slows
    assert message.only_slows
    ramp = np.concatenate([np.linspace(0, 1, 12), np.linspace(1, 0, 8)])[:, None] * np.ones(7)
    assert replace(message, velocities=ramp).slows_from_ns == 10_000 * MS + int(message.offsets_ns[11])


def test_the_clock_is_what_had_been_published_by_then():
    line = ClockLine()
    assert line.at(5) == 0
    for said_ns, clock_ns in ((10, 100), (20, 200), (15, 150), (30, 50)):
        line.add(said_ns, clock_ns)
    assert [line.at(instant_ns) for instant_ns in (5, 10, 19, 20, 29, 30, 99)] == [100, 100, 100, 200, 200, 50, 50]
