from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.runtime.buffer import JointBuffer

MS = 1_000_000


def filled(*stamps_ms: int, **options) -> JointBuffer:
    buffer = JointBuffer(tolerance_ns=10 * MS, **options)
    for stamp in stamps_ms:
        buffer.add(stamp * MS, np.array([float(stamp), -float(stamp)]))
    return buffer


@given(st.integers(20 * MS, 80 * MS))
def test_interpolates_linearly(at_ns):
    np.testing.assert_allclose(filled(20, 40, 41, 80).at(at_ns), np.array([at_ns, -at_ns]) / MS)


def test_given_stamps_are_exact():
    np.testing.assert_array_equal(filled(20, 40, 41).at(40 * MS), (40.0, -40.0))


@pytest.mark.parametrize(("at_ms", "expected"), [(10, 20), (20, 20), (50, 40), (9, None), (51, None)])
def test_outside_only_the_tolerance_is_answered_by_the_nearest(at_ms, expected):
    got = filled(20, 40).at(at_ms * MS)
    assert (got is None) if expected is None else got[0] == expected


def test_empty_knows_nothing():
    assert JointBuffer().at(0) is None
    assert JointBuffer().newest_ns is None


def test_late_and_repeated_samples_are_dropped_and_counted():
    buffer = filled(20, 40, 30, 40)
    assert (len(buffer), buffer.out_of_order, buffer.jumps) == (2, 2, 0)


def test_a_jump_back_in_time_starts_anew():
    buffer = filled(5000, 5020, 1000)
    assert (len(buffer), buffer.newest_ns, buffer.jumps) == (1, 1000 * MS, 1)
    assert buffer.at(5000 * MS) is None


def test_the_oldest_are_forgotten():
    buffer = filled(20, 40, 60, capacity=2)
    assert len(buffer) == 2
    assert buffer.at(20 * MS) is None
