from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dit_policy_ros.actions.limits import JointLimits, limit_waypoints

LIMITS = JointLimits(np.array([-1.0, 0.0]), np.array([1.0, 2.0]), np.array([0.5, 3.0]))
waypoints = arrays(np.float64, st.tuples(st.integers(1, 20), st.just(2)), elements=st.floats(-1e6, 1e6))
inside = st.tuples(st.floats(-1, 1), st.floats(0, 2)).map(np.array)
intervals = st.lists(st.integers(1_000_000, 100_000_000), min_size=20, max_size=20)


def steps_of(start, times_ns, positions):
    moved = np.abs(np.diff(positions, axis=0, prepend=start[None]))
    return moved, (np.diff(times_ns, prepend=0) * 1e-9)[:, None] * LIMITS.velocity


@given(waypoints, inside, intervals)
def test_no_limit_is_ever_exceeded(positions, start, intervals_ns):
    times = np.cumsum(intervals_ns)[: len(positions)]
    limited = limit_waypoints(LIMITS, 0, start, times, positions)
    assert (limited.positions >= LIMITS.lower).all()
    assert (limited.positions <= LIMITS.upper).all()
    moved, reach = steps_of(start, times, limited.positions)
    assert (moved <= reach * (1 + 1e-6) + 1e-12).all()


@given(arrays(np.float64, (20, 2), elements=st.floats(-1, 1)), inside, intervals)
def test_what_is_allowed_passes_unchanged(noise, start, intervals_ns):
    times = np.cumsum(intervals_ns)
    reach = (np.array(intervals_ns) * 1e-9)[:, None] * LIMITS.velocity
    positions = np.clip(start + np.cumsum(noise * reach, axis=0), LIMITS.lower, LIMITS.upper)
    limited = limit_waypoints(LIMITS, 0, start, times, positions)
    np.testing.assert_array_equal(limited.positions, positions)
    assert limited.position_hits.sum() == limited.velocity_hits.sum() == 0


def test_hits_are_counted_per_joint_until_it_has_caught_up():
    times = 100_000_000 * np.arange(1, 6)
    positions = np.array([[0.0, 0.0], [0.1, 2.5], [0.1, 2.0], [0.1, 2.0], [0.1, 2.0]])
    limited = limit_waypoints(LIMITS, 0, np.zeros(2), times, positions)
    np.testing.assert_allclose(limited.positions[:, 0], [0.0, 0.05, 0.1, 0.1, 0.1])
    np.testing.assert_allclose(limited.positions[:, 1], [0.0, 0.3, 0.6, 0.9, 1.2])
    np.testing.assert_array_equal(limited.position_hits, [0, 1])
    np.testing.assert_array_equal(limited.velocity_hits, [1, 4])


@given(waypoints, st.floats(1.0, 5.0), intervals)
def test_from_outside_it_comes_back_and_never_goes_farther_out(positions, outside, intervals_ns):
    times = np.cumsum(intervals_ns)[: len(positions)]
    start = np.array([outside, 1.0])
    limited = limit_waypoints(LIMITS, 0, start, times, positions).positions
    beyond = np.maximum(np.concatenate(([outside], limited[:, 0])) - 1.0, 0.0)
    assert (np.diff(beyond) <= 1e-9).all()
    moved, reach = steps_of(start, times, limited)
    assert (moved <= reach * (1 + 1e-6) + 1e-9).all()


@given(waypoints, inside, intervals)
def test_swapping_arms_swaps_arms(positions, start, intervals_ns):
    times = np.cumsum(intervals_ns)[: len(positions)]
    swapped = JointLimits(LIMITS.lower[::-1], LIMITS.upper[::-1], LIMITS.velocity[::-1])
    one = limit_waypoints(LIMITS, 0, start, times, positions)
    other = limit_waypoints(swapped, 0, start[::-1], times, positions[:, ::-1])
    np.testing.assert_array_equal(one.positions, other.positions[:, ::-1])
    np.testing.assert_array_equal(one.velocity_hits, other.velocity_hits[::-1])
