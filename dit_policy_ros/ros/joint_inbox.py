"""The joint states of a robot, on however many topics, as samples of all joints. What bags do, live nodes do by it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from dit_policy_ros.actions.joint_merge import JointCollector
from dit_policy_ros.data.commands import read_pose
from dit_policy_ros.errors import BagError, RobotError
from dit_policy_ros.robot import RobotSpec, pose_slots
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.joints import JointSample, joint_state_to_sample
from dit_policy_ros.ros.conversions.stamps import time_to_ns
from dit_policy_ros.ros.lifecycle import ManagedNode

JUMP_NS = 500_000_000
"""A stamp this far behind the newest means that time jumped back."""


@dataclass(frozen=True)
class HeardJoints:
    """One message."""

    topic: str
    stamp_ns: int
    """Of the message."""
    sample: JointSample | None
    """Every joint at one instant. A message that lacks joints, and that no other adds to, as it is: whoever takes it
    says what is missing. None while another topic has nothing newer."""
    problem: str = ""
    """Why the message is of no use."""


class JointInbox:
    """Callbacks store messages; the one worker that takes them merges."""

    def __init__(self, node: ManagedNode, robot: RobotSpec, length: int) -> None:
        """Subscribes to all topics of joint states and poses.

        Args:
            length: messages kept until they are taken; older ones are lost.
        """
        self._robot = robot
        self._topics = robot.measured_topics
        self._waiting: deque[tuple[int, JointState | PoseStamped]] = deque(maxlen=length)
        """(place of the topic in the robot description, message)."""
        self._collector = JointCollector(robot.names)
        self._newest_ns = 0
        slots = {joint.slot: joint.name for joint in robot.joints}
        self._channels = {
            topic: tuple(slots[slot] for slot in pose_slots(arm)) for arm, topic in robot.pose_topics.items()
        }
        kinds = [PoseStamped if topic in self._channels else JointState for topic in self._topics]
        self._streams = [
            node.listen_to(kind, topic, partial(self._store, rank), qos.SENSOR)
            for rank, (topic, kind) in enumerate(zip(self._topics, kinds, strict=True))
        ]

    def clear(self) -> None:
        """Forgets what waits and what was merged."""
        self._waiting.clear()
        self._collector.clear()
        self._newest_ns = 0

    def poll(self) -> None:
        """See ``Stream.poll``."""
        for stream in self._streams:
            stream.poll()

    def take(self) -> Iterator[HeardJoints]:
        """Yields what came since the last call, oldest first."""
        for _ in range(len(self._waiting)):
            try:
                rank, message = self._waiting.popleft()
            except IndexError:  # A callback has dropped it for a newer one.
                return
            yield self._read(rank, message)

    def _store(self, rank: int, message: JointState | PoseStamped) -> None:
        self._waiting.append((rank, message))

    def _read(self, rank: int, message: JointState | PoseStamped) -> HeardJoints:
        topic, stamp_ns = self._topics[rank], time_to_ns(message.header.stamp)
        try:
            sample = self._sample(topic, message)
        except (RobotError, BagError) as problem:
            return HeardJoints(topic, stamp_ns, None, str(problem))
        if stamp_ns < self._newest_ns - JUMP_NS:
            self._collector.clear()
            self._newest_ns = 0
        self._newest_ns = max(self._newest_ns, stamp_ns)
        values = np.array([list(sample.positions.values())])
        found = self._collector.add(rank, stamp_ns, tuple(sample.positions), values)
        if found is not None:
            at_ns, rows = found
            names = self._robot.names
            return HeardJoints(topic, stamp_ns, JointSample(at_ns, dict(zip(names, rows[0].tolist(), strict=True))))
        is_short = bool(self._collector.missing) or self._collector.whole_rank == rank
        return HeardJoints(topic, stamp_ns, sample if is_short else None)

    def _sample(self, topic: str, message: JointState | PoseStamped) -> JointSample:
        """Returns the robot's channels in a message."""
        if topic not in self._channels:
            return joint_state_to_sample(message, self._robot.names)
        values = read_pose(message, f"topic {topic}").tolist()
        return JointSample(time_to_ns(message.header.stamp), dict(zip(self._channels[topic], values, strict=True)))
