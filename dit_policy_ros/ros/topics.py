"""Every topic of a running graph that a recording holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, Empty, Float64, String
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.ros.outputs.choice import message_type_of


@dataclass(frozen=True)
class Topic:
    """One topic."""

    name: str
    type: Any
    """Message class."""
    is_latched: bool = False
    """Published once and kept for late joiners."""
    is_burst: bool = False
    """Latched, and several may come at once, none of which should be lost."""


MARKERS = {"std_msgs/msg/Bool": Bool, "std_msgs/msg/String": String, "std_msgs/msg/Empty": Empty}
"""Types that an episode marker may have; which one it is, only its publisher knows."""


def marker_topic(robot: RobotSpec) -> str:
    """Returns the topic of the robot's episode markers, '' where there is none or it is recorded anyway."""
    known = {topic.name for topic in recorded_topics(robot)}
    return "" if robot.episode_topic in known else robot.episode_topic


def recorded_topics(robot: RobotSpec) -> tuple[Topic, ...]:
    """Returns the robot's topics but episode markers, of cameras the transport that is used, and those of our nodes."""
    cameras = [
        Topic(f"{camera.topic}/compressed", CompressedImage)
        if camera.transport == "compressed"
        else Topic(camera.topic, Image)
        for camera in robot.cameras.values()
    ]
    depths = [camera.depth_topic for camera in robot.cameras.values() if camera.depth_topic]
    return (
        Topic("/clock", Clock),
        *(Topic(topic, Image) for topic in depths),
        *(Topic(f"{topic}/compressedDepth", CompressedImage) for topic in depths),
        *(Topic(topic, JointState) for topic in robot.states_topics),
        *(Topic(topic, PoseStamped) for topic in robot.pose_topics.values()),
        *cameras,
        *(Topic(controller.topic, kind) for controller in robot.controllers if (kind := message_type_of(controller))),
        Topic(robot.instruction_topic, String, is_latched=True),
        Topic("chunk", JointTrajectory),
        Topic("context", CompressedImage),
        Topic("plan", JointTrajectory),
        Topic("preview", JointTrajectory),
        Topic("interventions", String),
        Topic("status", String, is_latched=True, is_burst=True),
        Topic("episode", String, is_latched=True),
        Topic("e_stop", Bool, is_latched=True),
        Topic("enable", Bool),
        Topic("speed", Float64),
        Topic("/diagnostics", DiagnosticArray),
    )
