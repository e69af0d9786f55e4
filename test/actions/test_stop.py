from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dit_policy_ros.actions.limits import JointLimits, within
from dit_policy_ros.actions.motion import Motion
from dit_policy_ros.actions.stop import stays_inside, stop_motion, stops

H = 0.02
N = 200
LIMITS = JointLimits(*(np.full(N, value) for value in (-9.0, 9.0, 3.0, 15.0, 200.0)))
shares = arrays(np.float64, (2, N), elements=st.floats(-1, 1))


def hold(velocity, acceleration, limits=LIMITS, position=0.0):
    start = Motion(H, np.full((1, N), position), velocity[None], acceleration[None])
    found = stops(limits, velocity, acceleration, H)
    return found, stop_motion(found, start)


@settings(deadline=None)
@given(shares)
def test_every_hold_ends_at_rest_and_is_one_cubic_per_piece(share):
    velocity, acceleration = share[0] * 3.0, share[1] * 15.0
    found, motion = hold(velocity, acceleration)
    motion = motion.columns(found.found)
    np.testing.assert_array_equal(motion.velocities[-1], 0.0)
    np.testing.assert_array_equal(motion.accelerations[-1], 0.0)
    assert (np.abs(motion.accelerations) <= 15.0 * (1 + 1e-6)).all()
    assert (np.abs(motion.jerks) <= 200.0 * (1 + 1e-6)).all()
    positions = motion.positions[:-1] + H * (motion.velocities[:-1] + H * (motion.accelerations[:-1] / 2))
    np.testing.assert_allclose(positions + H**3 / 6 * motion.jerks, motion.positions[1:], atol=1e-9)


@settings(deadline=None)
@given(shares)
def test_there_is_a_hold_from_every_motion_that_does_not_speed_up(share):
    velocity = share[0] * 3.0
    found, motion = hold(velocity, 0.0 * velocity)
    assert found.found.all()
    assert within(LIMITS, motion).all()
    # Time-optimal without whole steps: speed over acceleration, and one ramp.
    assert (len(motion) - 1) * H <= np.abs(velocity).max() / 15.0 + 15.0 / 200.0 + 4 * H


def test_the_way_to_rest_is_that_of_even_braking():
    limits = JointLimits(*(np.full(N, value) for value in (-9.0, 9.0, 3.0, 15.0, 1e9)))
    _, motion = hold(np.full(N, 3.0), np.full(N, 0.0), limits)
    np.testing.assert_allclose(motion.positions[-1], 0.3, atol=3.0 * 2 * H)


def test_at_rest_the_hold_is_where_it_is():
    _, motion = hold(np.zeros(N), np.zeros(N), position=0.5)
    np.testing.assert_array_equal(motion.positions, 0.5)


def test_a_hold_that_would_leave_the_range_is_told_apart():
    velocity, zero = np.full(N, 3.0), np.zeros(N)
    found, motion = hold(velocity, zero)
    reach = float(motion.positions[-1, 0])
    for room, inside in ((reach + 1e-6, True), (reach - 1e-3, False)):
        limits = JointLimits(**{**vars(LIMITS), "upper": np.full(N, room)})
        assert stays_inside(limits, found, zero, velocity, zero, H).all() == inside
        assert within(limits, motion).all() == inside


def test_from_outside_the_limits_there_is_none():
    found, motion = hold(np.full(N, 3.1), np.zeros(N))
    assert not found.found.any()
    assert np.isnan(motion.positions).all()
    assert not hold(np.zeros(N), np.full(N, np.nan))[0].found.any()
