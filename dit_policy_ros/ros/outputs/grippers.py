"""Grippers behind an action. A policy streams, an action takes goals: one is sent when the target has moved."""

from __future__ import annotations

from typing import Any

from rclpy.action import ActionClient

from dit_policy_ros.controllers import Controller
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.outputs.optional import optional_type
from dit_policy_ros.ros.outputs.output import Moment


class GripperCommandOutput:
    """For ``control_msgs/action/GripperCommand``, the action of Humble's and Jazzy's gripper controllers."""

    action = "GripperCommand"
    streams = False

    def __init__(self, node: ManagedNode, controller: Controller, topic: str) -> None:
        """Makes the action's client."""
        self.controller = controller
        self.message_type = optional_type("control_msgs.action", self.action, controller.type)
        self._client = ActionClient(node, self.message_type, topic)
        self._last: float | None = None

    def encode(self, moment: Moment) -> Any:
        """See ``Output``. The goal is where the newest trajectory comes to rest."""
        if moment.trajectory is None:
            return None
        target = float(moment.trajectory.positions[-1, 0])
        if self._last is not None and abs(target - self._last) < self.controller.tolerance:
            return None
        self._last = target
        return self.goal(target)

    def goal(self, position: float) -> Any:
        """Returns a goal for a position."""
        goal = self.message_type.Goal()
        goal.command.position = position
        goal.command.max_effort = self.controller.max_effort
        return goal

    def send(self, encoded: Any) -> None:
        """See ``Output``. A new goal replaces the old one; its outcome is seen in the joint states."""
        self._client.send_goal_async(encoded)

    def flush(self) -> None:
        """See ``Output``. Services are reliable; there is nothing to wait for."""

    def close(self) -> None:
        """See ``Output``."""
        self._client.destroy()


class ParallelGripperCommandOutput(GripperCommandOutput):
    """For ``control_msgs/action/ParallelGripperCommand``, the action from Jazzy on."""

    action = "ParallelGripperCommand"

    def goal(self, position: float) -> Any:
        """See ``GripperCommandOutput``."""
        goal = self.message_type.Goal()
        goal.command.name = list(self.controller.joints)
        goal.command.position = [position]
        if self.controller.max_effort:
            goal.command.effort = [self.controller.max_effort]
        return goal
