"""A robot around an executor under test: joint states in, commands and status out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from harness import HOME, NOTHING, ROBOT, Stage, joint_state, swing, wait_until
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.resources import find_config
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.executor_node import ExecutorNode
from dit_policy_ros.strict_yaml import load_yaml_mapping

LEFT, RIGHT = ROBOT.controllers
FOLDER = tempfile.TemporaryDirectory(prefix="patient_robots_")
PATIENCE_S = 5.0
"""Age limit of joint states where a test is about something else: a busy machine feels them late."""


def patient(robot: str = "aloha") -> str:
    """Returns the path of a robot like another one, with an age limit that a busy machine keeps."""
    description = load_yaml_mapping(find_config("robots", robot), ConfigError)
    description["joint_states"]["max_age_s"] = PATIENCE_S
    path = Path(FOLDER.name) / f"{robot}.yaml"
    path.write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    return str(path)


PATIENT = patient()


class Robot:
    """Publishes joint states at 50 Hz and listens to commands, status and plan."""

    def __init__(
        self,
        stage: Stage,
        parameters: Mapping[str, Any] = NOTHING,
        start_node: bool = True,
        topics: Sequence[str] = (),
    ) -> None:
        """Starts the node, unless told not to; ``topics`` are listened to besides trajectories of both arms."""
        self.stage = stage
        if start_node:
            self.node = stage.activate(ExecutorNode, "executor_node", {"robot": PATIENT, **parameters})
        self.positions = dict(HOME)
        self.streams = [stage.hear(Float64MultiArray, topic, qos.COMMANDS_IN) for topic in topics]
        self.commands = [stage.hear(JointTrajectory, controller.topic, qos.COMMANDS_IN) for controller in (LEFT, RIGHT)]
        self.status = stage.hear(String, "/executor_node/status", qos.STATUS)
        self.joints = stage.speak(JointState, "/joint_states")
        self.chunks = stage.speak(JointTrajectory, "/chunk")

    def sense(self) -> None:
        self.joints.publish(joint_state(self.stage.now_ns(), self.positions))

    def move(self) -> None:
        """Sends chunks until the arms move."""

        def moving() -> bool:
            self.chunks.publish(swing(self.stage.now_ns()))
            return all(self.streams) and (self.streams or self.commands[0]) and self.commands[1] and self.told("moving")

        wait_until(moving, "both arms to move")
        begin_ns = self.stage.now_ns()
        wait_until(lambda: self.stage.now_ns() - begin_ns > 100_000_000, "the arms to gain speed")

    def call(self, service: str, succeeds_within: bool = False) -> str:
        """Calls a Trigger service of the executor; returns '' or its refusal."""
        client = self.stage.client.create_client(Trigger, f"/executor_node/{service}")
        wait_until(client.service_is_ready, f"the service {service}")

        def ask() -> str:
            answer = client.call(Trigger.Request(), timeout_sec=10.0)
            return "" if answer.success else answer.message

        if succeeds_within:
            wait_until(lambda: not ask(), f"{service} to succeed")
            return ""
        return ask()

    def told(self, text: str) -> bool:
        return any(text in message.data for message in self.status)
