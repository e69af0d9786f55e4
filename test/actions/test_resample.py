from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dit_policy_ros.actions.resample import METHODS, hermite, hermite_velocity, resample
from dit_policy_ros.errors import PolicyError

values_of = arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.floats(-5, 5))
methods = st.sampled_from(METHODS)


@given(values_of, methods)
def test_shared_instants_are_exact(values, method):
    times = 7 + 20 * np.arange(len(values))
    np.testing.assert_array_equal(resample(times, values, times, method), values)


@given(values_of, methods, st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_stays_between_the_neighbours(values, method, fractions):
    times = 20_000_000 * np.arange(len(values))
    at = np.array([int(f * times[-1]) for f in fractions])
    got = resample(times, values, at, method)
    before = np.minimum(at // 20_000_000, len(values) - 1)
    after = np.minimum(before + 1, len(values) - 1)
    assert (got >= np.minimum(values[before], values[after]) - 1e-9).all()
    assert (got <= np.maximum(values[before], values[after]) + 1e-9).all()


def test_linear_is_linear_and_cubic_is_smoother():
    times = 20_000_000 * np.arange(50)
    wave = np.sin(times / 1e8)[:, None]
    at = np.arange(times[0], times[-1], 3_333_333)
    truth = np.sin(at / 1e8)[:, None]
    error = {method: np.abs(resample(times, wave, at, method) - truth).mean() for method in METHODS}
    assert error["cubic"] < 0.25 * error["linear"] < 0.01
    np.testing.assert_allclose(resample(times[:2], wave[:2], np.array([5_000_000]), "linear"), 0.25 * wave[1:2])


@pytest.mark.parametrize("at", [[-1], [101], [0, 101]])
def test_never_extrapolates(at):
    with pytest.raises(PolicyError, match="ask for instants inside"):
        resample(np.array([0, 100]), np.zeros((2, 1)), np.array(at))


def test_unknown_method_lists_the_known_ones():
    with pytest.raises(PolicyError, match=r"'nearest' does not exist\. Available: cubic, linear"):
        resample(np.array([0, 100]), np.zeros((2, 1)), np.array([0]), "nearest")


def test_no_instants_give_no_values():
    assert resample(np.array([0, 100]), np.zeros((2, 3)), np.zeros(0, dtype=np.int64)).shape == (0, 3)


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.floats(0.01, 0.99))
def test_hermite_velocity_is_the_derivative(ends, w):
    h, interval_s = 1e-6, 0.5
    slope = (hermite(w + h, interval_s, *ends) - hermite(w - h, interval_s, *ends)) / (2 * h * interval_s)
    assert hermite_velocity(w, interval_s, *ends) == pytest.approx(slope, abs=1e-6)
