from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.actions.splice import ahead, committed_prefix, with_pending
from dit_policy_ros.types import ActionChunk

STEP = 20_000_000


def chunk(count: int, start_ns: int = 1_000_000_007, step_ns: int = STEP, committed: int = 0) -> ActionChunk:
    actions = np.random.default_rng(count).normal(size=(count, 2))
    return ActionChunk(("a", "b"), start_ns, step_ns, actions, 5, 6, 7, committed)


@given(st.integers(1, 60), st.integers(-2_000_000_000, 3_000_000_000), st.integers(0, 60))
def test_ahead_keeps_exactly_the_instants_after_now(count, offset_ns, committed):
    whole = chunk(count, committed=min(committed, count))
    now_ns = whole.start_ns + offset_ns
    kept = whole.times_ns > now_ns
    rest = ahead(whole, now_ns)
    if not kept.any():
        assert rest is None
        return
    np.testing.assert_array_equal(rest.times_ns, whole.times_ns[kept])
    np.testing.assert_array_equal(rest.actions, whole.actions[kept])
    assert rest.committed == np.count_nonzero(kept[: whole.committed])
    assert (rest.observation_ns, rest.context_ns, rest.epoch) == (5, 6, 7)


@given(st.integers(1, 60), st.integers(0, 59), st.integers(1, 80))
def test_a_prefix_is_exact_at_shared_instants_and_holds_the_end(count, skipped, wanted):
    plan = chunk(count)
    skipped = min(skipped, count - 1)
    prefix = committed_prefix(plan, plan.start_ns + skipped * STEP, STEP, wanted)
    expected = np.concatenate((plan.actions[skipped:], np.repeat(plan.actions[-1:], wanted, axis=0)))[:wanted]
    np.testing.assert_array_equal(prefix.actions, expected)
    assert (prefix.committed, prefix.start_ns) == (wanted, plan.start_ns + skipped * STEP)


def test_a_prefix_on_another_grid_lies_between():
    plan = chunk(3)
    prefix = committed_prefix(plan, plan.start_ns + STEP // 2, 2 * STEP, 1, "linear")
    np.testing.assert_allclose(prefix.actions[0], plan.actions[:2].mean(axis=0))
    assert prefix.step_ns == 2 * STEP


def test_no_prefix_of_nothing_or_of_the_unremembered_past():
    plan = chunk(3)
    assert committed_prefix(None, 0, STEP, 4) is None
    assert committed_prefix(plan, plan.start_ns, STEP, 0) is None
    assert committed_prefix(plan, plan.start_ns - 1, STEP, 4) is None


def test_a_chunk_that_was_handed_over_counts_as_planned():
    plan = chunk(10)
    from_ns = plan.start_ns + 4 * STEP
    new = ActionChunk(("b", "a"), plan.start_ns + 2 * STEP, STEP, np.full((20, 2), [7.0, 8.0]), 9, 9, 9)
    expected = with_pending(plan, new, from_ns)
    np.testing.assert_array_equal(expected.actions[:4, ::-1], plan.actions[:4])
    np.testing.assert_array_equal(expected.actions[4:], np.full((18, 2), [7.0, 8.0]))
    assert (expected.start_ns, expected.end_ns, expected.names) == (plan.start_ns, new.end_ns, ("b", "a"))
    assert with_pending(None, new, from_ns) is new


def test_a_chunk_on_another_grid_is_sampled_on_the_plan_s():
    plan = chunk(10)
    new = ActionChunk(plan.names, plan.start_ns + STEP // 2, STEP, np.arange(40.0).reshape(20, 2))
    expected = with_pending(plan, new, new.start_ns)
    np.testing.assert_array_equal(expected.actions[0], plan.actions[0])
    np.testing.assert_allclose(expected.actions[1], [1.0, 2.0], atol=1e-9)
