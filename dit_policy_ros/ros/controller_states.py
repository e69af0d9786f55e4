"""Hears what trajectory controllers say of themselves."""

from __future__ import annotations

from functools import partial
from typing import Any

from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.stamps import time_to_ns
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.outputs.optional import optional_type
from dit_policy_ros.runtime.controller_watch import ControllerWatch


def watch_controllers(node: ManagedNode, robot: RobotSpec) -> ControllerWatch:
    """Subscribes to ``controller_state`` beside the topic of every controller that is to be watched.

    Raises:
        ConfigError: the message is not installed.
    """
    watch = ControllerWatch(robot.controllers)
    for controller in watch.controllers:
        kind = optional_type("control_msgs.msg", "JointTrajectoryControllerState", f"{controller.type}, when watched,")
        topic = f"{controller.topic.rpartition('/')[0]}/controller_state"
        node.listen_to(kind, topic, partial(_hear, watch, controller.name), qos.NEWEST)
    return watch


def _hear(watch: ControllerWatch, name: str, message: Any) -> None:
    watch.hear(name, time_to_ns(message.header.stamp))
