"""Delays in virtual time: what the patterns and traces give."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.evaluate.delays import PATTERNS, check_pattern, check_trace, delays_ns


def drawn(pattern, system="action", mean_s=0.1, seed=0, count=2000, trace=None):
    return np.array(list(islice(delays_ns(system, pattern, mean_s, seed, trace), count))) * 1e-9


@pytest.mark.parametrize("pattern", PATTERNS)
def test_delays_are_repeatable_and_never_negative(pattern):
    np.testing.assert_array_equal(drawn(pattern, seed=3), drawn(pattern, seed=3))
    assert drawn(pattern).min() >= 0.0


def test_patterns_are_what_they_say():
    assert set(drawn("constant")) == {0.1}
    jitter = drawn("jitter")
    assert jitter.mean() == pytest.approx(0.1, abs=2e-3)
    assert 0.05 <= jitter.min() < 0.06 < 0.14 < jitter.max() <= 0.15
    spikes = drawn("spikes")
    assert set(spikes) == {0.1, 1.0}
    assert (spikes == 1.0).mean() == pytest.approx(1 / 20, abs=0.015)
    assert list(drawn("stall", "context", count=9)) == [0.1] * 7 + [3.0, 0.1]
    assert set(drawn("stall", "action")) == {0.1}
    assert not np.array_equal(drawn("jitter"), drawn("jitter", "context"))
    assert not np.array_equal(drawn("jitter"), drawn("jitter", seed=1))


def test_jitter_is_the_same_on_every_machine():
    np.testing.assert_array_equal(list(islice(delays_ns("action", "jitter", 0.1, 0), 2)), [123114266, 104640453])


@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=9))
def test_a_trace_repeats_from_the_beginning(values):
    trace = check_trace({"context": [0.1], "action": values})
    twice = drawn("constant", trace=trace, count=2 * len(values))
    np.testing.assert_allclose(twice, [*values, *values], atol=1e-9)


@pytest.mark.parametrize("trace", [{}, {"context": [0.1]}, {"context": [0.1], "action": [-0.1]}])
def test_bad_traces_and_patterns_are_refused(trace):
    with pytest.raises(ConfigError, match="'"):
        check_trace(trace)
    with pytest.raises(ConfigError, match="jitter"):
        check_pattern("random")
