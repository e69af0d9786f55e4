"""How long the arms wait for a younger context, and what is advised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.runtime.admission import stale_context
from dit_policy_ros.runtime.context_watch import STALE_CONTEXT, ContextWait, ContextWatch, wait_of
from dit_policy_ros.runtime.executor_config import ExecutorConfig
from dit_policy_ros.types import ActionChunk

MS = 1_000_000


def chunk(context_ms):
    return ActionChunk(("a",), 0, 20 * MS, np.zeros((2, 1)), context_ns=context_ms * MS)


def test_the_reason_is_the_executors():
    assert stale_context(0, 3_000 * MS, ExecutorConfig()).partition(":")[0] == STALE_CONTEXT


def test_time_held_is_that_between_stopping_and_moving_again():
    watch = ContextWatch(2.0)
    watch.changed("holding", "stale context: 9 s old", 500 * MS)  # nothing moved yet
    watch.changed("moving", "chunk", 1_000 * MS)
    assert watch.share(2_000 * MS) == 0.0
    watch.changed("stopping", "stale context: 2.010 s old (limit 2 s)", 2_000 * MS)
    assert watch.share(2_500 * MS) == pytest.approx(0.5 / 1.5)
    watch.changed("holding", "stale context: 2.5 s old (limit 2 s)", 2_500 * MS)
    watch.changed("moving", "chunk", 3_000 * MS)
    watch.changed("stopping", "out of plan: the last chunk ended 0.0 s ago", 4_000 * MS)
    watch.changed("holding", "joint states stale: 1 s", 4_500 * MS)
    assert watch.held_ns(5_000 * MS) == 1_000 * MS
    assert watch.share(5_000 * MS) == pytest.approx(0.25)


def test_what_is_needed_is_the_age_at_which_the_next_context_acts():
    watch = ContextWatch(2.0)
    for context_ms, now_ms in ((0, 1_200), (0, 1_500), (1_000, 2_200), (1_000, 2_500), (2_000, 3_300), (3_000, 4_200)):
        watch.offered(chunk(context_ms), now_ms * MS)
    assert watch.wait(0).needed_s == pytest.approx(2.3)  # 3.3 s - 1.0 s; the first of all is a warm-up
    watch.offered(chunk(9_000), 4_300 * MS)
    assert watch.wait(0).needed_s == pytest.approx(2.3), "a context from the future replaces nothing"
    watch.offered(chunk(0), 5_000 * MS)
    assert watch.wait(0).needed_s == pytest.approx(2.3), "a clock that jumped back replaces nothing"


@pytest.mark.parametrize(
    ("share", "needed_s", "limit_s", "says"),
    [
        (0.0, None, 2.0, ""),
        (0.0, 1.9, 2.0, ""),
        (
            0.32,
            None,
            2.0,
            "Held for 32.0 % of the time because the context was older than 2 s. Raise max_context_age_s,",
        ),
        (0.32, 2.4, 2.0, "Raise max_context_age_s to 2.7,"),
        (0.0, 2.4, 2.0, "Held for 0.0 % of the time"),
        (0.01, 1.4, 2.0, "Raise max_context_age_s, or"),
    ],
)
def test_advice(share, needed_s, limit_s, says):
    text = ContextWait(share, needed_s, limit_s).advice()
    assert bool(text) == bool(says)
    assert says in text


@given(limit_s=st.floats(0.1, 10.0), needed_s=st.floats(0.0, 20.0), share=st.floats(0.0, 1.0))
def test_an_advised_limit_is_above_what_is_needed(limit_s, needed_s, share):
    text = ContextWait(share, needed_s, limit_s).advice()
    if " to " not in text:
        assert needed_s <= limit_s
        return
    advised_s = float(text.split("max_context_age_s to ")[1].partition(",")[0])
    assert advised_s > needed_s > limit_s


def test_several_runs_are_one():
    assert wait_of([]) is None
    together = wait_of([ContextWait(0.0, None, 2.0), ContextWait(0.4, 2.5, 2.0), ContextWait(0.2, 2.3, 2.0)])
    assert together == ContextWait(pytest.approx(0.2), 2.5, 2.0)
