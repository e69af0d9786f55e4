from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.actions.limiter import rested
from dit_policy_ros.actions.limits import JointLimits
from dit_policy_ros.actions.motion import Motion, through
from dit_policy_ros.runtime.plan import RunningPlan

MS = 1_000_000
STEP = 20 * MS
LIMITS = JointLimits(*(np.full(2, value) for value in (-9.0, 9.0, 9.0, 90.0, 9e3)))


def wave(times_ns: np.ndarray) -> np.ndarray:
    t = times_ns[:, None] * 1e-9
    return np.concatenate((np.sin(3 * t), np.cos(2 * t)), axis=1)


def moving(first_ns: int = 1000 * MS) -> RunningPlan:
    times = first_ns + STEP * np.arange(40, dtype=np.int64)
    motion = rested(LIMITS, through(wave(times), 0.02))
    return RunningPlan.at_rest(first_ns, STEP, wave(times)[0]).continued(first_ns, motion, first_ns - 200 * MS)


def test_rest_is_everywhere_the_same():
    plan = RunningPlan.at_rest(1007 * MS, STEP, np.array([1.0, 2.0]))
    assert plan.start_ns == plan.end_ns == 1000 * MS
    positions, velocities = plan.states_at(np.array([0, 1000 * MS, 5000 * MS]))
    np.testing.assert_array_equal(positions, [[1.0, 2.0]] * 3)
    np.testing.assert_array_equal(velocities, 0.0)


def test_between_knots_it_is_smooth():
    plan = moving()
    times = plan.start_ns + STEP * np.arange(2, 38)
    np.testing.assert_allclose(plan.states_at(times)[0], wave(times), atol=1e-12)
    between = times + 7 * MS
    motion = plan.motion_at(between, STEP)
    np.testing.assert_allclose(motion.positions, wave(between), atol=1e-4)
    h = 1000
    before, after = plan.motion_at(between - h, STEP), plan.motion_at(between + h, STEP)
    np.testing.assert_allclose(motion.velocities, (after.positions - before.positions) / (2e-9 * h), atol=1e-5)
    np.testing.assert_allclose(motion.accelerations, (after.velocities - before.velocities) / (2e-9 * h), atol=1e-4)


def test_after_the_end_and_before_the_start_the_arms_rest():
    plan = moving()
    for instant, knot in ((0, 0), (plan.end_ns, -1), (plan.end_ns + 10**12, -1)):
        motion = plan.motion_at(np.array([instant]), STEP)
        np.testing.assert_array_equal(motion.positions[0], plan.positions[knot])
        np.testing.assert_array_equal(motion.velocities[0] * (instant != plan.start_ns), 0.0)
        np.testing.assert_array_equal(motion.accelerations, 0.0)


@given(st.integers(50, 900), st.integers(1, 300))
def test_a_continuation_keeps_the_past_and_is_smooth(since_ms, history_ms):
    plan = moving()
    first_ns = plan.start_ns + since_ms * MS
    start = plan.motion_at(np.array([first_ns]), STEP)
    new = plan.continued(first_ns, rested(LIMITS, start), first_ns - history_ms * MS)
    assert (np.diff(new.times_ns) > 0).all()
    past = np.arange(max(plan.start_ns, first_ns - history_ms * MS), first_ns + 1, 3 * MS)
    for old_values, new_values in zip(plan.states_at(past), new.states_at(past), strict=True):
        np.testing.assert_allclose(new_values, old_values, atol=1e-9)
    around = new.motion_at(np.array([first_ns - 1, first_ns, first_ns + 1]), STEP)
    np.testing.assert_allclose(np.diff(around.accelerations, axis=0), 0.0, atol=1e-4)
    assert new.start_ns <= first_ns <= new.end_ns


def test_a_plan_that_ended_long_ago_is_remembered_as_a_hold():
    plan = moving()
    now_ns = plan.end_ns + 3000 * MS
    rest = Motion(0.02, plan.positions[-1:], np.zeros((1, 2)), np.zeros((1, 2)))
    new = plan.continued(now_ns, rest, now_ns - 200 * MS)
    first_ns, positions = new.sampled(STEP)
    assert first_ns >= now_ns - 200 * MS
    np.testing.assert_array_equal(positions, np.repeat(plan.positions[-1:], len(positions), axis=0))


def test_the_reach_is_that_of_what_lies_ahead():
    plan = moving()
    dense = plan.states_at(np.arange(plan.start_ns + 300 * MS, plan.end_ns + 1, MS))[0]
    lowest, highest = plan.reach(plan.start_ns + 300 * MS)
    np.testing.assert_allclose(lowest, dense.min(axis=0), atol=1e-5)
    np.testing.assert_allclose(highest, dense.max(axis=0), atol=1e-5)
    np.testing.assert_array_equal(plan.reach(plan.end_ns + STEP)[0], plan.positions[-1])


def test_knots_lie_on_a_grid_or_not():
    plan = moving()
    assert plan.follows_grid(plan.start_ns + 5 * STEP, STEP)
    assert not plan.follows_grid(plan.start_ns + 5 * STEP + MS, STEP)
