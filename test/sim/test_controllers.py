from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.sim.controllers import TrajectoryController, TrajectoryControllerConfig
from dit_policy_ros.sim.interpolation import State, interpolate
from dit_policy_ros.types import Trajectory

S = 1_000_000_000
JOINTS = ("a", "b")


def controller(start=(0.0, 0.0), **config) -> TrajectoryController:
    made = TrajectoryController(JOINTS, TrajectoryControllerConfig(**config), np.array(start))
    made.sample(10 * S)
    return made


def send(to, now_ns=10 * S, *, stamp=10 * S, names=JOINTS, offsets=(S,), p=((1.0, 2.0),), v=(), a=(), efforts=()):
    return to.accept(stamp, names, offsets, p, v, a, now_ns, efforts)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"names": ()}, "Empty joint names"),
        ({"names": ("a", "c")}, "Unknown joints"),
        ({"names": ("a", "a")}, "Joint named twice"),
        ({"names": ("a",), "p": ((1.0,),)}, "Missing joints"),
        ({"names": ("a", "b", "c"), "p": ((1.0, 2.0, 3.0),)}, "Unknown joints"),
        ({"offsets": (), "p": ()}, "Empty trajectory"),
        ({"p": ((1.0,),)}, "Wrong size of positions"),
        ({"p": ((),), "v": ((0.0, 0.0),)}, "Wrong size of positions"),
        ({"p": ()}, "Wrong size of positions"),
        ({"p": ((1.0, 2.0), (1.0, 2.0))}, "Wrong number of positions"),
        ({"v": ((0.0,),)}, "Wrong size of velocities"),
        ({"a": ((0.0, 0.0, 0.0),)}, "Wrong size of accelerations"),
        ({"v": ((0.0, 1e-3),)}, "Last velocity is not zero"),
        ({"efforts": ((1.0, 1.0),)}, "Effort is not supported"),
        ({"offsets": (S, S), "p": ((1.0, 2.0), (1.0, 2.0))}, "Time from start is not strictly increasing"),
        ({"stamp": 8 * S}, "Ends in the past"),
        ({"p": ((np.nan, 0.0),)}, "Not finite"),
        ({"v": ((np.inf, 0.0),)}, "Not finite"),
    ],
)
def test_rejections_are_named_counted_and_change_nothing(message, reason):
    rig = controller()
    assert send(rig, offsets=(2 * S,)) == ""
    before = rig.sample(11 * S)[0]
    assert send(rig, 11 * S, **message).startswith(reason)
    assert (rig.rejected, rig.accepted, rig.rejections[reason]) == (1, 1, 1)
    assert rig.last_rejection.startswith(reason)
    np.testing.assert_allclose(rig.sample(12 * S)[0], 2 * before)


def test_options_allow_what_is_rejected_by_default():
    partial = controller((0.5, 0.7), allow_partial_joints_goal=True)
    assert send(partial, names=("b",), p=((1.0,),)) == ""
    np.testing.assert_allclose(partial.sample(12 * S)[0], (0.5, 1.0))
    moving = controller(allow_nonzero_velocity_at_trajectory_end=True)
    assert send(moving, v=((1.0, 1.0),)) == ""
    np.testing.assert_allclose(moving.sample(12 * S), ((1.0, 2.0), (0.0, 0.0)))


def test_accepts_any_joint_order():
    rig = controller()
    assert send(rig, names=("b", "a"), p=((2.0, 1.0),), v=((0.0, 0.0),)) == ""
    np.testing.assert_allclose(rig.sample(20 * S)[0], (1.0, 2.0))


def test_tiny_last_velocity_and_an_end_right_now_are_accepted():
    assert send(controller(), stamp=9 * S, v=((1e-8, 0.0),)) == ""


def test_stamp_zero_starts_at_the_next_sample():
    rig = controller()
    assert send(rig, stamp=0, offsets=(0, S), p=((0.0, 0.0), (1.0, 2.0))) == ""
    np.testing.assert_allclose(rig.sample(15 * S)[0], (0.0, 0.0))
    np.testing.assert_allclose(rig.sample(15 * S + S // 2)[0], (0.5, 1.0))


def test_past_points_are_skipped_by_the_clock():
    rig = controller()
    assert send(rig, stamp=9 * S, offsets=(0, S // 2, 2 * S), p=((9.0, 9.0), (0.0, 0.0), (3.0, 6.0))) == ""
    np.testing.assert_allclose(rig.sample(10 * S)[0], (1.0, 2.0))


def test_a_first_point_at_now_is_a_step():
    rig = controller()
    send(rig, stamp=10 * S, offsets=(0,))
    np.testing.assert_allclose(rig.sample(10 * S)[0], (1.0, 2.0))


def test_bridges_from_the_reference_or_from_the_measured_state():
    desired, measured = controller(), controller(interpolate_from_desired_state=False)
    for rig in (desired, measured):
        rig.feedback(np.array([-1.0, -2.0]), np.zeros(2))
        send(rig, stamp=11 * S, offsets=(0,))
    np.testing.assert_allclose(desired.sample(10 * S)[0], (0.0, 0.0))
    np.testing.assert_allclose(measured.sample(10 * S)[0], (-1.0, -2.0))
    np.testing.assert_allclose(desired.sample(10 * S + S // 2)[0], (0.5, 1.0))
    np.testing.assert_allclose(measured.sample(10 * S + S // 2)[0], (0.0, 0.0))


def test_a_new_trajectory_forgets_the_old_one_at_once():
    rig = controller()
    send(rig, offsets=(4 * S,), p=((4.0, 4.0),))
    assert rig.sample(11 * S)[0][0] == pytest.approx(1.0)
    send(rig, 11 * S, stamp=13 * S, offsets=(0,), p=((0.0, 0.0),))
    np.testing.assert_allclose(rig.sample(12 * S)[0], (0.5, 0.5))


def test_holds_the_last_point():
    rig = controller()
    send(rig)
    np.testing.assert_allclose(rig.sample(99 * S), ((1.0, 2.0), (0.0, 0.0)))


def test_holds_when_the_clock_jumps_back_and_after_reset():
    rig = controller()
    send(rig, offsets=(2 * S,))
    there = rig.sample(11 * S)[0]
    np.testing.assert_array_equal(rig.sample(3 * S)[0], there)
    rig.reset(np.array([0.3, 0.4]))
    np.testing.assert_array_equal(rig.sample(3 * S)[0], (0.3, 0.4))


def test_follow_takes_a_trajectory_value():
    rig = controller()
    times = np.array([11 * S, 12 * S])
    assert rig.follow(Trajectory(("b", "a"), times, np.array([[2.0, 1.0], [2.0, 1.0]])), 10 * S) == ""
    np.testing.assert_allclose(rig.sample(11 * S)[0], (1.0, 2.0))
    assert rig.follow(Trajectory(JOINTS, np.zeros(0, np.int64), np.zeros((0, 2))), 10 * S) == "Empty trajectory"


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6), st.sampled_from([1, 3, 5]), st.floats(0.01, 2.0))
def test_a_segment_meets_both_ends_in_all_derivatives_it_fits(values, degree, duration):
    p0, v0, a0, p1, v1, a1 = (np.array([value]) for value in values)
    start = State(p0, v0 if degree > 1 else None, a0 if degree > 3 else None)
    end = State(p1, v1 if degree > 1 else None, a1 if degree > 3 else None)
    end_ns = int(duration * S)
    for now_ns, (p, v, a) in ((0, (p0, v0, a0)), (end_ns, (p1, v1, a1))):
        state = interpolate(0, start, end_ns, end, now_ns)
        np.testing.assert_allclose(state.positions, p, atol=1e-6)
        if degree > 1:
            np.testing.assert_allclose(state.velocities, v, atol=1e-5)
        if degree > 3:
            np.testing.assert_allclose(state.accelerations, a, atol=1e-3)


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_a_quintic_is_reproduced_between_its_ends(coefficients):
    poly = np.polynomial.Polynomial(coefficients)

    def at(t: float) -> State:
        return State(*(np.array([poly.deriv(n)(t) if n else poly(t)]) for n in range(3)))

    middle = interpolate(0, at(0.0), S, at(1.0), S // 3)
    np.testing.assert_allclose(middle.positions, poly((S // 3) / S), atol=1e-9)
    np.testing.assert_allclose(middle.velocities, poly.deriv()((S // 3) / S), atol=1e-8)
