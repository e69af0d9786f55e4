"""Chunks at a share of their speed."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from plant import MS, SPEC, START, STEP, moving, wave

from dit_policy_ros.actions.pacing import repaced, slowed
from dit_policy_ros.types import ActionChunk


def test_speed_scales_the_motion_live():
    plant = moving()
    fast = plant.supervisor.executor
    before = fast.reference(plant.now_ns + 200 * MS) - fast.reference(plant.now_ns + 100 * MS)
    assert plant.supervisor.set_speed(0.25, plant.now_ns) == ""
    plant.run()
    after = fast.reference(plant.now_ns + 200 * MS) - fast.reference(plant.now_ns + 100 * MS)
    np.testing.assert_allclose(after, before * 0.25, rtol=0.2, atol=1e-3)
    assert "must be 0..1" in plant.supervisor.set_speed(1.5, 0)
    assert "must be 0..1" in plant.supervisor.set_speed(math.nan, 0)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.02, 1.0), st.integers(2, 64), st.integers(0, 64))
def test_a_slowed_chunk_stays_on_the_path_and_in_its_time(speed, count, committed):
    actions = np.arange(count, dtype=float)[:, None] * np.ones(len(SPEC.names))
    chunk = ActionChunk(SPEC.names, 1000, STEP, actions, committed=min(committed, count))
    slow = slowed(chunk, speed)
    begin = chunk.start_ns + max(0, min(chunk.committed - 1, count - 1)) * STEP if speed < 1.0 else chunk.start_ns
    assert slow.start_ns == begin
    expected = (slow.times_ns - begin) * speed / STEP + (begin - chunk.start_ns) / STEP
    np.testing.assert_allclose(slow.actions[:, 0], expected, atol=1e-4)
    assert slow.end_ns <= chunk.end_ns + 2 * slow.step_ns


def test_a_repaced_chunk_begins_after_now_where_it_was():
    chunk = wave(0, START)
    rest = repaced(chunk, 110 * MS, 0.5)
    assert (rest.start_ns, rest.step_ns) == (120 * MS, 2 * STEP)
    np.testing.assert_array_equal(rest.actions, chunk.actions[6:])
    assert repaced(chunk, chunk.end_ns, 0.5) is None
