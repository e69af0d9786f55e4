from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.actions.velocities import waypoint_velocities
from dit_policy_ros.runtime.plan import RunningPlan

MS = 1_000_000
STEP = 20 * MS


def wave(times_ns: np.ndarray) -> np.ndarray:
    t = times_ns[:, None] * 1e-9
    return np.concatenate((np.sin(3 * t), np.cos(2 * t)), axis=1)


def moving(now_ns: int = 1000 * MS, lead_ns: int = STEP, history_ns: int = 200 * MS) -> RunningPlan:
    rest = RunningPlan.at_rest(now_ns, STEP, wave(np.array([now_ns]))[0])
    times = now_ns // STEP * STEP + lead_ns + STEP * np.arange(40, dtype=np.int64)
    velocities = waypoint_velocities(now_ns, rest.positions[0], times, wave(times))
    return rest.continued(now_ns, times, wave(times), velocities, history_ns)


def test_rest_is_everywhere_the_same():
    plan = RunningPlan.at_rest(1007 * MS, STEP, np.array([1.0, 2.0]))
    assert plan.start_ns == plan.end_ns == 1000 * MS
    positions, velocities = plan.states_at(np.array([0, 1000 * MS, 5000 * MS]))
    np.testing.assert_array_equal(positions, [[1.0, 2.0]] * 3)
    np.testing.assert_array_equal(velocities, 0.0)


def test_waypoints_are_exact_and_between_them_it_is_smooth():
    plan = moving()
    times = plan.start_ns + STEP * np.arange(2, 39)
    np.testing.assert_array_equal(plan.states_at(times)[0], wave(times))
    between = times + 7 * MS
    positions, velocities = plan.states_at(between)
    np.testing.assert_allclose(positions, wave(between), atol=2e-3)
    h = 1000
    slope = (plan.states_at(between + h)[0] - plan.states_at(between - h)[0]) / (2e-9 * h)
    np.testing.assert_allclose(velocities, slope, atol=1e-5)


def test_after_the_end_and_before_the_start_the_arms_rest():
    plan = moving()
    for instant, waypoint in ((0, 0), (plan.end_ns, -1), (plan.end_ns + 10**12, -1)):
        position, velocity = plan.state_at(instant)
        np.testing.assert_array_equal(position, plan.positions[waypoint])
        np.testing.assert_array_equal(velocity, 0.0)


@given(st.integers(0, 700 * MS), st.integers(1, 3 * STEP))
def test_a_continuation_keeps_the_past_and_takes_over_ahead(since_ns, lead_ns):
    plan = moving()
    now_ns = plan.start_ns + since_ns
    first_ns = -(-(now_ns + lead_ns) // STEP) * STEP
    times = first_ns + STEP * np.arange(5, dtype=np.int64)
    new = plan.continued(now_ns, times, np.full((5, 2), 0.5), np.zeros((5, 2)), 200 * MS)
    here_ns = now_ns // STEP * STEP
    past = np.arange(new.start_ns, here_ns + 1, STEP)
    np.testing.assert_allclose(new.states_at(past)[0], plan.states_at(past)[0], atol=1e-12)
    np.testing.assert_array_equal(new.states_at(times)[0], 0.5)
    assert new.start_ns == max(plan.start_ns, here_ns - 200 * MS)
    assert new.end_ns == times[-1]
    assert len(new.positions) == len(new.velocities) == (new.end_ns - new.start_ns) // STEP + 1


def test_the_gap_before_the_first_waypoint_is_the_bridge():
    plan = RunningPlan.at_rest(1000 * MS, STEP, np.zeros(1))
    times = np.array([1060 * MS])
    new = plan.continued(1000 * MS, times, np.ones((1, 1)), np.zeros((1, 1)), STEP)
    np.testing.assert_allclose(new.positions[:, 0], [0.0, 7 / 27, 20 / 27, 1.0])


def test_a_continuation_between_two_instants_of_the_grid_is_smooth_at_now():
    plan = moving()
    now_ns = plan.start_ns + 107 * MS
    times = now_ns - 7 * MS + 2 * STEP + STEP * np.arange(3, dtype=np.int64)
    new = plan.continued(now_ns, times, np.zeros((3, 2)), np.zeros((3, 2)), 200 * MS)
    for old_state, new_state in zip(plan.state_at(now_ns), new.state_at(now_ns), strict=True):
        np.testing.assert_allclose(new_state, old_state, atol=1e-12)
    around = np.array([times[0] - 1, times[0]])
    np.testing.assert_allclose(*new.states_at(around)[0], atol=1e-6)


def test_a_plan_that_ended_long_ago_is_remembered_as_a_hold():
    plan = moving()
    now_ns = plan.end_ns + 3000 * MS
    times = np.array([now_ns + STEP])
    new = plan.continued(now_ns, times, plan.positions[-1:], np.zeros((1, 2)), 200 * MS)
    assert len(new.positions) == 12
    np.testing.assert_array_equal(new.positions, np.repeat(plan.positions[-1:], 12, axis=0))
