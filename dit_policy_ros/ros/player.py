"""Plays a bag into the ROS graph at its own pace, with its clock, where ``ros2 bag play`` is not installed."""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Collection
from typing import Any

import rclpy
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.errors import BagError
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.stamps import ns_to_time
from dit_policy_ros.types import seconds

CLOCK_PERIOD_NS = 10_000_000
_RELIABLE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=10,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
)


def inputs_of(robot: RobotSpec) -> set[str]:
    """Returns the topics that a policy takes from a robot: cameras, joints, poses and the instruction."""
    cameras = {
        topic
        for camera in robot.cameras.values()
        for topic in (camera.topic, f"{camera.topic}/compressed", camera.depth_topic)
        if topic
    }
    return cameras | {*robot.states_topics, *robot.pose_topics.values(), robot.instruction_topic}


class BagPlayer:
    """Publishes the serialised messages of a bag at the times at which they were recorded."""

    def __init__(
        self, bag: BagFile, topics: Collection[str] | None = None, with_clock: bool = False, context: Any = None
    ) -> None:
        """Makes the publishers.

        Args:
            bag: what to play.
            topics: of the bag; None plays all of them.
            with_clock: publish the time of recording on /clock, and not what the bag has there.
            context: of rclpy; None takes the default one.

        Raises:
            BagError: the bag has none of the topics, or no message at all.
        """
        wanted = set(bag.topics if topics is None else topics) & {topic for topic in bag.counts if bag.counts[topic]}
        if with_clock:
            wanted.discard("/clock")
        if not wanted:
            present = ", ".join(sorted(topic for topic in bag.counts if bag.counts[topic])) or "none"
            raise BagError(f"{bag.path} has nothing to play. Topics with messages: {present}.")
        self._bag = bag
        self._node = rclpy.create_node("bag_player", context=context, use_global_arguments=False)
        self.skipped: dict[str, str] = {}
        """Topic to the type that is not installed here."""
        self._publishers = {}
        for topic in sorted(wanted):
            kind = _message_class(bag.topics[topic])
            if kind is None:
                self.skipped[topic] = bag.topics[topic]
                continue
            profile = qos.LATCHED if bag.topics[topic] == messages.STRING else _RELIABLE
            self._publishers[topic] = self._node.create_publisher(kind, topic, profile)
        self._clock = self._node.create_publisher(Clock, "/clock", qos.COMMAND) if with_clock else None

    def play(self, rate: float = 1.0, stop: threading.Event | None = None) -> int:
        """Plays to the end and returns the number of messages published.

        Args:
            rate: seconds of the bag in a second.
            stop: ends it early when set.

        Raises:
            BagError: the bag breaks off.
        """
        stop = stop or threading.Event()
        start_ns, _ = self._bag.span_ns
        begin_s = time.monotonic()
        clock_ns = start_ns
        count = 0

        def wait_until(instant_ns: int) -> bool:
            return stop.wait(max(0.0, seconds(instant_ns - start_ns) / rate - (time.monotonic() - begin_s)))

        for topic, log_ns, cdr in self._bag.messages(self._publishers.keys()):
            while self._clock is not None and clock_ns < log_ns:
                if wait_until(clock_ns):
                    return count
                self._tell_time(clock_ns)
                clock_ns += CLOCK_PERIOD_NS
            if wait_until(log_ns):
                return count
            self._tell_time(log_ns)
            self._publishers[topic].publish(cdr)
            count += 1
        return count

    def wait_for_listeners(self, topics: Collection[str], timeout_s: float) -> bool:
        """Waits until somebody listens to each of some topics; returns whether they do."""
        deadline_s = time.monotonic() + timeout_s
        missing = [self._publishers[topic] for topic in topics if topic in self._publishers]
        while missing and time.monotonic() < deadline_s:
            missing = [publisher for publisher in missing if publisher.get_subscription_count() == 0]
            time.sleep(0.02)
        return not missing

    def close(self) -> None:
        """Takes the publishers out of the graph."""
        self._node.destroy_node()

    def _tell_time(self, now_ns: int) -> None:
        if self._clock is not None:
            self._clock.publish(Clock(clock=ns_to_time(now_ns)))


def _message_class(msgtype: str) -> type | None:
    package, _, name = msgtype.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name, None)
    except ModuleNotFoundError:
        return None


def play_bag(bag: BagFile, topics: Collection[str] | None, with_clock: bool, rate: float, delay_s: float) -> int:
    """Plays a bag in a process of its own and returns the number of messages.

    Args:
        delay_s: for others to find the publishers, [s].

    Raises:
        BagError: see ``BagPlayer``.
    """
    rclpy.init()
    try:
        player = BagPlayer(bag, topics, with_clock)
        try:
            for topic, msgtype in player.skipped.items():
                print(f"{topic} is left out: {msgtype} is not installed.")
            time.sleep(delay_s)
            start_ns, end_ns = bag.span_ns
            print(f"Playing {seconds(end_ns - start_ns) / rate:.1f} s of {bag.path}.")
            return player.play(rate)
        finally:
            player.close()
    finally:
        rclpy.try_shutdown()
