"""Every topic of a running graph that a recording holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, String
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.robot import RobotSpec


@dataclass(frozen=True)
class Topic:
    """One topic."""

    name: str
    type: Any
    """Message class."""
    is_latched: bool = False
    """Published once and kept for late joiners."""


def recorded_topics(robot: RobotSpec) -> tuple[Topic, ...]:
    """Returns the robot's topics, of each camera the transport that the policy uses, and those of our nodes."""
    cameras = [
        Topic(f"{camera.topic}/compressed", CompressedImage)
        if camera.transport == "compressed"
        else Topic(camera.topic, Image)
        for camera in robot.cameras.values()
    ]
    return (
        Topic("/clock", Clock),
        Topic(robot.joint_states_topic, JointState),
        *cameras,
        *(Topic(controller.topic, JointTrajectory) for controller in robot.controllers),
        Topic(robot.instruction_topic, String, is_latched=True),
        Topic("chunk", JointTrajectory),
        Topic("context", CompressedImage),
        Topic("plan", JointTrajectory),
        Topic("status", String, is_latched=True),
        Topic("episode", String, is_latched=True),
        Topic("e_stop", Bool, is_latched=True),
        Topic("enable", Bool),
        Topic("/diagnostics", DiagnosticArray),
    )
