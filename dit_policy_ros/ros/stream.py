"""One subscription with its bounds and its diagnostics."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile

from dit_policy_ros.ros.bounds import bound_of, too_large
from dit_policy_ros.ros.diagnostics import ERROR, OK, WARN, Status
from dit_policy_ros.ros.problems import Problems
from dit_policy_ros.runtime.stream_monitor import StreamMonitor


class Stream:
    """Hands messages on that keep the bounds, and knows how they arrive."""

    def __init__(
        self,
        node: Node,
        problems: Problems,
        message_type: type,
        topic: str,
        store: Callable[[Any], None],
        profile: QoSProfile,
        raw: bool = False,
    ) -> None:
        """Subscribes; ``store`` runs in the ROS thread and must only store."""
        self._node = node
        self._problems = problems
        self._store = store
        self._bound = bound_of(message_type, raw)
        self._mismatches = 0
        self.monitor = StreamMonitor(self._bound.most_hz)
        self.subscription = node.create_subscription(
            message_type,
            topic,
            self._take,
            profile,
            raw=raw,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._note_mismatch),
        )
        self.topic = self.subscription.topic_name

    def poll(self) -> None:
        """Takes what has arrived, in the ROS thread, while a callback keeps it from doing so itself."""
        subscription = self.subscription
        with subscription.handle:
            while (taken := subscription.handle.take_message(subscription.msg_type, subscription.raw)) is not None:
                self._take(taken[0])

    def status(self) -> Status:
        """Returns rate, age and who publishes, with the level they deserve."""
        now_ns, monitor = time.monotonic_ns(), self.monitor
        publishers = self._node.count_publishers(self.topic)
        age_s = monitor.age_s(now_ns)
        values: dict[str, object] = {
            "messages": monitor.count,
            "rate_hz": monitor.rate_hz(now_ns),
            "publishers": publishers,
            "dropped, too fast": monitor.dropped,
            "publishers with unfit QoS": self._mismatches,
        }
        if age_s is not None:
            values["age_s"] = age_s
        if self._mismatches and not monitor.count:
            return Status(ERROR, "QoS does not match; publish reliable, and transient local where latched", values)
        if publishers == 0:
            return Status(WARN, "nobody publishes this; check names, remappings and ROS_DOMAIN_ID", values)
        return Status(OK if monitor.count else WARN, "ok" if monitor.count else "nothing received yet", values)

    def _take(self, message: Any) -> None:
        taken = self.monitor.note(time.monotonic_ns())
        reason = too_large(self._bound, message) if taken else f"too fast: {self._bound.most_hz:g} Hz at most are taken"
        self._problems.tell(f"input {self.topic}", reason)
        if not reason:
            self._store(message)

    def _note_mismatch(self, info: Any) -> None:
        self._mismatches = info.total_count
