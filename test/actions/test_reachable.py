from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dit_policy_ros.actions.limits import JointLimits
from dit_policy_ros.actions.motion import Motion
from dit_policy_ros.actions.reachable import caught_up, reachable_points

H = 0.02
LIMITS = JointLimits(
    np.array([-3.0, 0.0]), np.array([3.0, 2.0]), np.array([2.0, 3.0]), np.array([20.0, 50.0]), np.array([900.0, 2e3])
)
REST = Motion(H, np.array([[0.2, 1.0]]), np.zeros((1, 2)), np.zeros((1, 2)))
STRIDE = H * LIMITS.velocity
anything = arrays(np.float64, st.tuples(st.integers(1, 40), st.just(2)), elements=st.floats(-3, 3))


@given(anything)
def test_from_rest_speed_acceleration_and_jerk_are_kept(targets):
    points = reachable_points(LIMITS, REST, targets).points
    assert points.shape == targets.shape
    strides = np.diff(np.concatenate((np.repeat(REST.positions, 40, axis=0), points)), axis=0)
    changes = np.diff(strides, axis=0)
    assert (np.abs(strides) <= STRIDE * (1.0 + 1e-9)).all()
    assert (np.abs(changes) <= H**2 * LIMITS.acceleration + 1e-9).all()
    assert (np.abs(np.diff(changes, axis=0)) <= H**3 * LIMITS.jerk + 1e-9).all()


def test_a_jump_is_gone_to_at_full_speed_and_ended_there():
    points = reachable_points(LIMITS, REST, np.repeat([[0.7, 1.6]], 40, axis=0)).points
    np.testing.assert_allclose(points[-1], [0.7, 1.6], atol=1e-12)
    assert (np.abs(np.diff(points, axis=0)).max(axis=0) > 0.9 * STRIDE).all()


def test_what_is_slow_enough_is_followed_within_two_steps():
    t = H * np.arange(1, 41)[:, None]
    points = reachable_points(LIMITS, REST, np.array([[0.2, 1.0]]) + 0.5 * t).points
    later = np.array([[0.2, 1.0]]) + 0.5 * (t + H)
    np.testing.assert_allclose(points[12:30], later[12:30], atol=0.5 * 2.0 * H)


@given(anything, st.floats(-0.9, 0.9))
def test_from_a_motion_points_go_on_with_it(targets, share):
    start = Motion(H, REST.positions, share * LIMITS.velocity[None], REST.accelerations)
    points = reachable_points(LIMITS, start, targets).points
    assert (np.abs(np.diff(points, axis=0)) <= STRIDE * (1.0 + 1e-9)).all()
    assert (np.abs(points[0] - start.positions[0] - 2.0 * H * start.velocities[0]) <= 3.0 * STRIDE).all()


@pytest.mark.parametrize("size", [1e9, 1e300])
def test_huge_targets_give_finite_points(size):
    with np.errstate(over="ignore"):
        assert np.isfinite(reachable_points(LIMITS, REST, np.full((20, 2), size)).points).all()


def test_once_caught_up_with_the_exact_points_go_on():
    exact = REST.positions + 0.1 + 0.05 * np.sin(2.0 * H * np.arange(2, 42))[:, None]
    reachable = reachable_points(LIMITS, REST, exact)
    points = caught_up(LIMITS, H, reachable, exact)
    followed = points == exact
    assert not followed[0].any()
    assert followed[12:].all()
    # Before that nothing changes.
    np.testing.assert_array_equal(points[~followed], reachable.points[~followed])


def test_what_ends_with_a_jump_is_not_caught_up_with():
    exact = np.repeat(REST.positions, 40, axis=0)
    exact[30:] += 0.5
    reachable = reachable_points(LIMITS, REST, exact)
    np.testing.assert_array_equal(caught_up(LIMITS, H, reachable, exact), reachable.points)
