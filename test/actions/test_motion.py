from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dit_policy_ros.actions.fade import PIECES, faded
from dit_policy_ros.actions.motion import Motion, after, control_points, from_control_points, reaches, through

H = 0.02
waypoints = arrays(np.float64, st.tuples(st.integers(1, 20), st.just(3)), elements=st.floats(-2, 2))
states = arrays(np.float64, (3, 1, 3), elements=st.floats(-2, 2))


def assert_one_cubic_per_piece(motion: Motion):
    """The knots agree with constant jerk between them: nothing jumps but the jerk."""
    p, v, a = (part[:-1] for part in (motion.positions, motion.velocities, motion.accelerations))
    end = after(motion.step_s, p, v, a, motion.jerks)
    scale = 1.0 + np.abs(motion.accelerations).max()
    for reached, knots in zip(end, (motion.positions, motion.velocities, motion.accelerations), strict=True):
        np.testing.assert_allclose(reached, knots[1:], atol=1e-9 * scale)


@given(waypoints)
def test_the_spline_goes_through_its_waypoints_with_continuous_acceleration(points):
    motion = through(points, H)
    np.testing.assert_array_equal(motion.positions, points)
    assert_one_cubic_per_piece(motion)


@given(arrays(np.float64, (4, 3), elements=st.floats(-2, 2)))
def test_the_spline_of_a_parabola_is_the_parabola(coefficients):
    t = H * np.arange(9)[:, None]
    motion = through(coefficients[0] + coefficients[1] * t + coefficients[2] * t**2, H)
    np.testing.assert_allclose(motion.velocities, coefficients[1] + 2 * coefficients[2] * t, atol=1e-9)
    np.testing.assert_allclose(motion.accelerations, 2 * coefficients[2] + 0 * t, atol=1e-8)


@given(waypoints.filter(lambda points: len(points) > 2))
def test_control_points_bound_position_and_speed(points):
    motion = from_control_points(points, H)
    assert (motion.positions <= points.max(axis=0) + 1e-12).all()
    assert (motion.positions >= points.min(axis=0) - 1e-12).all()
    assert (np.abs(motion.velocities) <= np.abs(np.diff(points, axis=0)).max(axis=0) / H + 1e-9).all()
    assert_one_cubic_per_piece(motion)


def test_one_waypoint_stands_still_and_two_make_a_line():
    np.testing.assert_allclose(control_points(np.ones((1, 2))), 1.0)
    np.testing.assert_allclose(through(np.array([[0.0], [0.1]]), H).velocities, 5.0)


@given(states, waypoints, st.sampled_from((1, 2, 5)))
def test_a_fade_begins_anywhere_and_ends_on_the_motion(state, points, steps):
    motion = through(points, H).padded(PIECES * steps + 3)
    start = Motion(H, *state)
    caught = faded(motion, start, steps)
    np.testing.assert_array_equal(caught.positions[0], start.positions[0])
    np.testing.assert_array_equal(caught.velocities[0], start.velocities[0])
    np.testing.assert_array_equal(caught.accelerations[0], start.accelerations[0])
    np.testing.assert_array_equal(caught[PIECES * steps :].positions, motion[PIECES * steps :].positions)
    if len(points) >= len(motion):
        assert_one_cubic_per_piece(caught)


@given(arrays(np.float64, (4, 5), elements=st.floats(-50, 50)), st.floats(0.001, 0.5))
def test_the_reach_of_a_cubic_is_what_dense_sampling_finds(state, duration_s):
    positions = after(np.linspace(0.0, duration_s, 2000)[:, None], *state)[0]
    lowest, highest = reaches(duration_s, *state)
    assert (lowest <= positions.min(axis=0) + 1e-9).all()
    assert (highest >= positions.max(axis=0) - 1e-9).all()
    np.testing.assert_allclose(lowest, positions.min(axis=0), atol=1e-4)
    np.testing.assert_allclose(highest, positions.max(axis=0), atol=1e-4)


def test_padding_and_trimming_add_and_take_rest():
    motion = through(np.zeros((5, 2)), H)
    assert len(motion.padded(9)) == 9
    assert len(motion.padded(9).trimmed()) == 1
    motion.velocities[2, 0] = 1.0
    assert len(motion.padded(9).trimmed()) == 4
