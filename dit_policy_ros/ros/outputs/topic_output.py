"""Outputs that publish one message type on one topic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from rclpy.duration import Duration

from dit_policy_ros.controllers import Controller
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.outputs.output import Moment, Output
from dit_policy_ros.types import Trajectory

LAST_WORD_TIMEOUT = Duration(seconds=1.0)


class TopicOutput(Output, ABC):
    """Publishes; subclasses encode. The node lets go of the publisher."""

    message_type: Any
    streams = False

    def __init__(self, node: ManagedNode, controller: Controller, topic: str) -> None:
        """Makes the publisher.

        Args:
            topic: the controller's, or another one where nothing may be commanded.
        """
        self.controller = controller
        self._publisher = node.publish_on(self.message_type, topic, qos.COMMAND)

    @abstractmethod
    def encode(self, moment: Moment) -> Any:
        """See ``Output``."""

    def send(self, encoded: Any) -> None:
        """See ``Output``."""
        self._publisher.publish(encoded)

    def flush(self) -> None:
        """See ``Output``."""
        self._publisher.wait_for_all_acked(LAST_WORD_TIMEOUT)


class StreamOutput(TopicOutput):
    """Says something in every period of a motion and once after it."""

    streams = True

    def __init__(self, node: ManagedNode, controller: Controller, topic: str) -> None:
        super().__init__(node, controller, topic)
        self._moved = False

    def encode(self, moment: Moment) -> Any:
        """See ``Output``."""
        says, self._moved = moment.moves or self._moved, moment.moves
        return self.sample(moment) if says and moment.reference(moment.now_ns) is not None else None

    @abstractmethod
    def sample(self, moment: Moment) -> Any:
        """Returns the message for now."""


class TrajectoryOutput(TopicOutput):
    """Says something whenever there is a new trajectory."""

    def encode(self, moment: Moment) -> Any:
        """See ``Output``."""
        return None if moment.trajectory is None else self.message(moment.trajectory, moment.now_ns)

    @abstractmethod
    def message(self, trajectory: Trajectory, stamp_ns: int) -> Any:
        """Returns the message of a trajectory."""
