from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dit_policy_ros.actions.velocities import knot_velocities

positions_of = arrays(np.float64, st.tuples(st.integers(2, 12), st.just(2)), elements=st.floats(-5, 5))
intervals = st.lists(st.integers(1_000_000, 100_000_000), min_size=12, max_size=12)


@given(positions_of, intervals)
def test_no_faster_than_the_neighbouring_slopes(positions, intervals_ns):
    times = np.cumsum(intervals_ns)[: len(positions)]
    slopes = np.abs(np.diff(positions, axis=0) / (np.diff(times) * 1e-9)[:, None])
    padded = np.pad(slopes, ((1, 1), (0, 0)), mode="edge")
    assert (np.abs(knot_velocities(times, positions)) <= np.maximum(padded[:-1], padded[1:]) * (1 + 1e-9)).all()


def test_a_parabola_gets_its_derivative_on_an_uneven_grid():
    times = np.array([-20, 0, 10, 40, 50, 90]) * 1_000_000
    t = times[:, None] * 1e-9
    np.testing.assert_allclose(knot_velocities(times, t**2 + t)[1:-1], 2 * t[1:-1] + 1, atol=1e-9)


@given(positions_of)
def test_swapping_arms_swaps_arms(positions):
    times = 20_000_000 * np.arange(len(positions))
    np.testing.assert_array_equal(
        knot_velocities(times, positions[:, ::-1]), knot_velocities(times, positions)[:, ::-1]
    )
