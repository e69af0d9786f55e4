import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dit_policy_ros.data.running_statistics import RunningStatistics
from dit_policy_ros.errors import BagError

VALUES = arrays(np.float64, st.tuples(st.integers(1, 200), st.just(2)), elements=st.floats(-1e3, 1e3, width=32))


@given(values=VALUES, cuts=st.lists(st.integers(0, 200), max_size=5))
def test_equals_numpy_however_the_stream_is_cut(values, cuts):
    running = RunningStatistics(2)
    for batch in np.split(values, sorted(cut for cut in cuts if cut <= len(values))):
        running.add(batch)
    result = running.result()
    assert result.count == len(values)
    np.testing.assert_allclose(result.mean, values.mean(axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(result.std, values.std(axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(result.min, values.min(axis=0))
    np.testing.assert_array_equal(result.max, values.max(axis=0))
    spread = np.ptp(values, axis=0) / 2048 + 1e-6
    for got, fraction in ((result.q01, 0.01), (result.q99, 0.99)):
        exact = np.quantile(values, fraction, axis=0, method="inverted_cdf")
        assert (np.abs(got - exact) <= spread).all()


def test_a_still_channel_and_a_late_outlier():
    running = RunningStatistics(1)
    running.add(np.full((5000, 1), 0.25))
    still = running.result()
    np.testing.assert_array_equal([still.std, still.q01, still.q99], [[0.0], [0.25], [0.25]])
    running.add(np.array([[-1e6], [1e6]]))
    assert abs(running.result().q99[0] - 0.25) < 2e6 / 2048
    assert still.to_dict()["mean"] == [0.25]


def test_nothing_to_summarise():
    with pytest.raises(BagError, match="no values"):
        RunningStatistics(3).result()
