"""A fault run that was interrupted goes on."""

from __future__ import annotations

import os
import threading
import time

import pytest

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.ros.faults.journal import append_instant, read_journal
from dit_policy_ros.ros.faults.processor import longest_s, waits_s
from dit_policy_ros.ros.faults.suite import Instant, outstanding


def test_what_was_written_is_read_again(tmp_path):
    path = tmp_path / "faults.jsonl"
    assert read_journal(path) == []
    done = [Instant("a", (), 0.1, 0.5, 3, 0.01), Instant("b", ("too fast", "too far"), None, None, 0)]
    for instant in done:
        append_instant(path, instant)
    assert read_journal(path) == done


@pytest.mark.parametrize(("line", "says"), [("{", "Line 2 of .* is no JSON"), ('{"fault": "a"}', "is no instant")])
def test_a_foreign_line_is_refused(tmp_path, line, says):
    path = tmp_path / "faults.jsonl"
    append_instant(path, Instant("a", (), 0.1, 0.5, 3))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ConfigError, match=says):
        read_journal(path)


def test_what_is_outstanding_comes_in_rounds():
    done = [Instant("a", (), None, 0.1, 1), Instant("a", (), None, 0.1, 1), Instant("b", (), None, 0.1, 1)]
    assert outstanding(done, ["a", "b", "c"], 3) == [("c", 0), ("b", 1), ("c", 1), ("a", 2), ("b", 2), ("c", 2)]
    assert outstanding(done, ["a"], 2) == []


def test_the_kernel_tells_how_long_a_thread_waited_for_a_processor():
    before = waits_s([os.getpid()])
    assert (os.getpid(), str(threading.get_native_id())) in before
    # More threads than processors: some of them wait.
    end = time.monotonic() + 0.3
    from subprocess import Popen

    eaters = [Popen(["sh", "-c", "while :; do :; done"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        while time.monotonic() < end:
            pass
    finally:
        for eater in eaters:
            eater.kill()
            eater.wait()
    assert longest_s(before, waits_s([os.getpid()])) > 0.0
    assert longest_s({}, before) is None
