from __future__ import annotations

from dit_policy_ros.runtime.latency import LatencyWindow


def test_the_first_run_is_ignored():
    window = LatencyWindow()
    window.add(10**9)
    assert (window.p50_ns, window.p95_ns, len(window)) == (None, None, 0)
    window.add(7)
    assert (window.p50_ns, window.p95_ns, len(window)) == (7, 7, 1)


def test_percentiles_are_durations_that_were_seen():
    window = LatencyWindow(size=100)
    for duration in (0, *range(1, 101)):
        window.add(duration)
    assert (window.p50_ns, window.p95_ns, window.percentile_ns(100)) == (50, 95, 100)


def test_the_window_slides():
    window = LatencyWindow(size=3)
    for duration in (0, 100, 1, 2, 3):
        window.add(duration)
    assert (len(window), window.percentile_ns(100)) == (3, 3)
