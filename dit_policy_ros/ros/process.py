"""One node as one process: from its arguments to a clean end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from dit_policy_ros.errors import DitPolicyError
from dit_policy_ros.ros.lifecycle import ManagedNode

PARENT_VARIABLE = "DIT_POLICY_ROS_PARENT"
"""Environment variable with the process id of the launcher. A node that loses its parent shuts down."""
SPIN_PERIOD_S = 0.1


def run_node(make_node: Callable[[], ManagedNode], arguments: Sequence[str] | None = None) -> int:
    """Spins a node until SIGINT, SIGTERM, its own end or its parent's, then takes it through shutdown.

    Returns:
        Exit code of the process: 0, or 1 where the node could not be made or broke.
    """
    # rclpy's own handlers would close the context before a last command can be sent.
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        node = make_node()
    except DitPolicyError as problem:
        print(f"error: {problem}", file=sys.stderr)
        rclpy.shutdown()
        return 1
    executor = _make_executor()
    executor.add_node(node)
    try:
        while not (stop.is_set() or node.is_broken or node.is_finalized or _is_orphan()):
            executor.spin_once(timeout_sec=SPIN_PERIOD_S)
    except Exception as problem:
        node.get_logger().fatal(f"A callback failed: {problem!r}\n{traceback.format_exc()}")
        node.is_broken = True
    finally:
        if not node.is_finalized:
            node.trigger_shutdown()
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown()
    return 1 if node.is_broken else 0


def _make_executor() -> Executor:
    """The events executor needs little more than half the processor time of the other; Humble has none."""
    try:
        from rclpy.experimental.events_executor import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor()
    return EventsExecutor()


def _is_orphan() -> bool:
    parent = os.environ.get(PARENT_VARIABLE)
    return parent is not None and os.getppid() != int(parent)
