from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.runtime.stream_monitor import StreamMonitor

MS = 1_000_000


def test_rate_and_age_follow_the_arrivals_and_fall_in_silence():
    monitor = StreamMonitor(math.inf)
    assert monitor.age_s(0) is None
    for k in range(40):
        monitor.note(k * 20 * MS)
    assert monitor.rate_hz(39 * 20 * MS) == pytest.approx(50.0)
    assert monitor.age_s(1000 * MS) == pytest.approx(0.22)
    assert monitor.rate_hz(60_000 * MS) < 1.0


@given(st.lists(st.integers(0, 20 * MS), min_size=1, max_size=300), st.floats(1.0, 500.0))
def test_no_span_of_time_takes_more_than_its_share(gaps, most_hz):
    monitor, now_ns, taken_ns = StreamMonitor(most_hz), 0, []
    for gap in gaps:
        now_ns += gap
        if monitor.note(now_ns):
            taken_ns.append(now_ns)
    assert monitor.dropped == monitor.count - len(taken_ns)
    burst = max(2.0, most_hz / 10.0)
    for i in range(len(taken_ns)):
        span_s = (taken_ns[-1] - taken_ns[i]) * 1e-9
        assert len(taken_ns) - i <= burst + span_s * most_hz + 1e-6


def test_a_stream_below_its_bound_loses_nothing():
    monitor = StreamMonitor(100.0)
    assert all(monitor.note(k * 11 * MS) for k in range(500))
