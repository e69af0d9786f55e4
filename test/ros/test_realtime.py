"""The executor's threads get the priority that is asked for, or the node says why not."""

from __future__ import annotations

import os
import threading

import pytest
from executor_stage import PATIENT
from harness import Stage

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.ros.executor_node import ExecutorNode
from dit_policy_ros.ros.realtime import take_priority

pytestmark = pytest.mark.ros
PRIORITY = 1


@pytest.fixture
def allowed():
    """Whether this user may take a priority; it is given back."""
    try:
        take_priority(PRIORITY)
        yield True
    except ConfigError:
        yield False
    finally:
        take_priority(0)


def test_every_thread_takes_it_and_gives_it_back(allowed: bool) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        if not allowed:
            with pytest.raises(ConfigError, match=r"rtprio 1' in /etc/security/limits.conf"):
                take_priority(PRIORITY)
            return
        take_priority(PRIORITY)
        assert os.sched_getscheduler(thread.native_id) == os.SCHED_FIFO
        take_priority(0)
        assert os.sched_getscheduler(thread.native_id) == os.SCHED_OTHER
    finally:
        end.set()
        thread.join()


def test_the_control_loop_runs_at_the_parameter(stage: Stage, allowed: bool) -> None:
    take_priority(0)
    node = stage.start(ExecutorNode, "executor_node", {"robot": PATIENT, "realtime_priority": PRIORITY})
    stage.change("executor_node", "configure")
    if not allowed:
        assert node.trigger_activate().name == "FAILURE"
        return
    stage.change("executor_node", "activate")
    (loop,) = [thread for thread in threading.enumerate() if thread.name == "executor"]
    assert os.sched_getscheduler(loop.native_id) == os.SCHED_FIFO
    assert os.sched_getparam(loop.native_id).sched_priority == PRIORITY
