"""Stands between nodes and hands on what they say to each other, or something else."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

PREFIX = "/relayed"
"""What relayed topics are called behind the relay."""


class Relay:
    """Hands serialised messages on, from ``topic`` to ``/relayed<topic>``. Callbacks run in the node's thread."""

    def __init__(self, node: Node) -> None:
        """Starts without topics."""
        self._node = node
        self._tampers: dict[str, Callable[[bytes], list[tuple[float, bytes]]]] = {}
        self._publishers = {}
        self._late: list[tuple[float, int, str, bytes]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()
        node.create_timer(0.01, self._send_late)

    def carry(
        self,
        message_type: type,
        topic: str,
        heard: QoSProfile,
        said: QoSProfile,
        listen: Callable[[bytes, Any], None] = lambda cdr, info: None,
    ) -> None:
        """Begins to relay a topic.

        Args:
            listen: gets every message before it is handed on, with what the middleware says of it. Another
                subscription might hear others: one of two misses the last words of a process that is killed.
        """
        self._publishers[topic] = self._node.create_publisher(message_type, PREFIX + topic, said)

        def take(cdr: bytes, info: Any) -> None:
            listen(cdr, info)
            self._take(topic, cdr)

        self._node.create_subscription(message_type, topic, take, heard, raw=True)

    def tamper(self, topic: str, how: Callable[[bytes], list[tuple[float, bytes]]] | None) -> None:
        """Meddles with a topic; None stops it."""
        with self._lock:
            if how is None:
                self._tampers.pop(topic, None)
            else:
                self._tampers[topic] = how

    def _take(self, topic: str, cdr: bytes) -> None:
        with self._lock:
            how = self._tampers.get(topic)
        for delay_s, message in [(0.0, bytes(cdr))] if how is None else how(bytes(cdr)):
            if delay_s <= 0.0:
                self._publishers[topic].publish(message)
            else:
                heapq.heappush(self._late, (time.monotonic() + delay_s, next(self._order), topic, message))

    def _send_late(self) -> None:
        while self._late and self._late[0][0] <= time.monotonic():
            _, _, topic, message = heapq.heappop(self._late)
            self._publishers[topic].publish(message)
