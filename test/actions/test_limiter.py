from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dit_policy_ros.actions.limiter import limit_motion
from dit_policy_ros.actions.limits import JointLimits, within
from dit_policy_ros.actions.motion import Motion, through
from dit_policy_ros.actions.slowing import slower, speed_within

H = 0.02
LIMITS = JointLimits(
    np.array([-1.0, 0.0]), np.array([1.0, 2.0]), np.array([2.0, 3.0]), np.array([20.0, 50.0]), np.array([900.0, 2e3])
)
UNLIMITED = JointLimits(*(np.full(2, value) for value in (-1e12, 1e12, 1e12, 1e12, 1e12)))
HOME = np.array([[0.2, 1.0]])
REST = Motion(H, HOME, np.zeros((1, 2)), np.zeros((1, 2)))
T = H * np.arange(1, 41)[:, None]
anything = arrays(
    np.float64, st.tuples(st.integers(1, 30), st.just(2)), elements=st.floats(-1e6, 1e6) | st.floats(-2, 2)
)


def smooth(size):
    return HOME + size * (1.0 - np.cos(5.0 * T))


@given(st.floats(0.0, 0.1))
def test_what_is_allowed_passes_exactly(size):
    limited = limit_motion(LIMITS, REST, HOME, smooth(size))
    free = limit_motion(UNLIMITED, REST, HOME, smooth(size))
    assert limited.unchanged.all()
    assert sum(hits.sum() for hits in limited.hits.values()) == 0
    np.testing.assert_allclose(limited.motion.positions[4:41], smooth(size)[3:], atol=1e-12)
    for name in ("positions", "velocities", "accelerations"):
        np.testing.assert_allclose(getattr(limited.motion, name)[:41], getattr(free.motion, name)[:41], atol=1e-9)


@settings(deadline=None)
@given(anything, st.floats(-1, 1), st.floats(-1, 1))
def test_whatever_is_wanted_the_motion_is_inside_and_ends_at_rest(wanted, speed, hardness):
    start = Motion(H, HOME, speed * np.array([[1.0, 1.5]]), hardness * np.array([[10.0, 25.0]]))
    limited = limit_motion(LIMITS, start, HOME, wanted)
    motion = limited.motion.columns(limited.feasible)
    limits = LIMITS.columns(np.flatnonzero(limited.feasible))
    assert limited.feasible.all()
    assert within(limits, motion).all()
    np.testing.assert_array_equal(motion.velocities[-1], 0.0)
    np.testing.assert_array_equal(motion.accelerations[-1], 0.0)
    np.testing.assert_array_equal(limited.motion.positions[0], start.positions[0])
    np.testing.assert_array_equal(limited.motion.velocities[0], start.velocities[0])
    np.testing.assert_array_equal(limited.motion.accelerations[0], start.accelerations[0])


def test_noise_is_smoothed_and_little_else():
    noise = np.random.default_rng(1).normal(0.0, 0.003, smooth(0.1).shape)
    limited = limit_motion(LIMITS, REST, HOME, smooth(0.1) + noise)
    assert limited.hits["acceleration"].all()
    error = limited.motion.positions[5:40] - smooth(0.1)[4:39]
    assert np.sqrt((error**2).mean()) < 0.003
    assert np.abs(error).max() < 0.012


def test_a_jump_is_gone_to_as_fast_as_allowed():
    wanted = np.repeat(HOME + 0.5, 40, axis=0)
    limited = limit_motion(LIMITS, REST, HOME, wanted)
    assert not limited.unchanged.any()
    there = np.argmax(np.abs(limited.motion.positions - wanted[-1]) < 0.01, axis=0) * H
    # Speed limit alone: 0.25 s and 0.17 s; with acceleration and jerk half as much again.
    assert (there < [0.45, 0.35]).all()
    np.testing.assert_allclose(limited.motion.positions[-1], wanted[-1], atol=2e-3)


def test_joints_do_not_influence_each_other():
    rng = np.random.default_rng(2)
    wanted = HOME + rng.normal(size=(20, 2)) * [[0.3, 0.0]]
    both = limit_motion(LIMITS, REST, HOME, wanted).motion
    alone = limit_motion(LIMITS.columns(np.array([1])), REST.columns(np.array([1])), HOME[:, 1:], wanted[:, 1:]).motion
    count = min(len(both), len(alone))
    np.testing.assert_allclose(both.positions[:count, 1], alone.positions[:count, 0], atol=1e-9)


def test_from_outside_it_comes_back_and_never_goes_farther_out():
    start = Motion(H, np.array([[1.3, 1.0]]), np.zeros((1, 2)), np.zeros((1, 2)))
    motion = limit_motion(LIMITS, start, start.positions, np.repeat([[1.5, 1.0]], 30, axis=0)).motion
    assert motion.positions[:, 0].max() <= 1.3 + 1e-9
    assert motion.positions[-1, 0] <= 1.0 + 1e-3


def test_exactness_never_leaves_the_waypoints():
    rough = smooth(0.1) + 0.01 * (np.arange(40) % 2)[:, None]
    limited = limit_motion(LIMITS, REST, HOME, rough, exact=True)
    assert not limited.feasible.any()
    late = limit_motion(LIMITS, REST, HOME + 0.01, smooth(0.1) + 0.01, exact=True)
    assert late.feasible.all()
    np.testing.assert_allclose(late.motion.positions[30:40], smooth(0.1)[29:39] + 0.01, atol=1e-12)


def test_what_was_planned_is_the_last_resort():
    # At the acceleration limit towards the end of the range, where not every knot has a hold of whole steps.
    planned = limit_motion(LIMITS, REST, HOME, np.repeat([[1.0, 2.0]], 40, axis=0)).motion
    found = 0
    for knot in range(1, len(planned) - 3):
        start = planned[knot : knot + 1]
        limited = limit_motion(LIMITS, start, start.positions, np.full((5, 2), 9.0), otherwise=planned[knot:])
        assert limited.feasible.all()
        assert within(LIMITS, limited.motion).all()
        found += 1
    assert found > 10


@pytest.mark.parametrize("speed", [1.0, 0.5, 0.1])
def test_slower_waypoints_stay_on_the_path(speed):
    line = through(np.concatenate((HOME, HOME + np.cumsum(np.full((30, 2), 0.01) * [[1.0, 2.0]], axis=0))), H)
    waypoints = slower(line, speed)
    np.testing.assert_allclose(waypoints[:, 1] - 1.0, 2.0 * (waypoints[:, 0] - 0.2), atol=1e-12)
    np.testing.assert_allclose(waypoints[-1], line.positions[-1], atol=1e-12)
    np.testing.assert_allclose(np.diff(waypoints[6:-2], axis=0)[:, 0], 0.01 * speed, atol=1e-12)


def test_the_speed_that_keeps_the_limits():
    line = through(HOME + 5.0 * np.concatenate(([[0.0]], T)) * [[1.0, 0.1]], H)
    assert speed_within(LIMITS, line) == pytest.approx(0.4)
    assert speed_within(UNLIMITED, line) == 1.0
