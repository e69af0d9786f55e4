"""What the executor says in /diagnostics of contexts that are too old."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from dit_policy_ros.ros.diagnostics import OK, WARN
from dit_policy_ros.ros.executor_report import context_status
from dit_policy_ros.runtime.context_watch import ContextWatch
from dit_policy_ros.types import ActionChunk

MS = 1_000_000


def chunk(context_ms):
    return ActionChunk(("a",), 0, 20 * MS, np.zeros((2, 1)), context_ns=context_ms * MS)


def test_old_contexts_are_a_warning_that_says_what_to_do():
    watch = ContextWatch(2.0)
    assert (context_status(watch, 0).level, context_status(watch, 0).message) == (OK, "ok")
    watch.changed("moving", "chunk", 0)
    for context_ms in (0, 1_200, 2_400, 3_600):
        watch.offered(chunk(context_ms), (context_ms + 1_300) * MS)
    watch.changed("stopping", "stale context: 2.010 s old (limit 2 s)", 3_000 * MS)
    watch.changed("moving", "chunk", 4_000 * MS)
    status = context_status(watch, 5_000 * MS)
    assert status.level == WARN
    assert "Held for 20.0 % of the time because the context was older than 2 s" in status.message
    assert "Raise max_context_age_s to 2.8" in status.message
    assert status.values["held_percent"] == pytest.approx(20.0)
    assert status.values["needed p95_s"] == pytest.approx(2.5)
