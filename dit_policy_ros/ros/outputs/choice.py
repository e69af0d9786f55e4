"""Type of a controller to the class that talks to it. A new one is a class and a line here and in controllers.py."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from dit_policy_ros.controllers import Controller
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.outputs.output import Output

OUTPUTS: Mapping[str, str] = {
    "joint_trajectory": "dit_policy_ros.ros.outputs.joints:JointTrajectoryOutput",
    "forward_command": "dit_policy_ros.ros.outputs.joints:ForwardCommandOutput",
    "joint_jog": "dit_policy_ros.ros.outputs.joints:JointJogOutput",
    "pose": "dit_policy_ros.ros.outputs.poses:PoseOutput",
    "twist": "dit_policy_ros.ros.outputs.poses:TwistOutput",
    "pose_trajectory": "dit_policy_ros.ros.outputs.poses:PoseTrajectoryOutput",
    "gripper_command": "dit_policy_ros.ros.outputs.grippers:GripperCommandOutput",
    "parallel_gripper_command": "dit_policy_ros.ros.outputs.grippers:ParallelGripperCommandOutput",
}


def output_class(controller_type: str) -> type:
    """Returns the class of outputs for a type of controller."""
    module, _, name = OUTPUTS[controller_type].partition(":")
    return getattr(importlib.import_module(module), name)


def message_type_of(controller: Controller) -> Any:
    """Returns the message class on a controller's topic; None for actions and where it is not always there."""
    return getattr(output_class(controller.type), "message_type", None)


def make_output(node: ManagedNode, controller: Controller) -> Output:
    """Makes the line to one controller.

    Raises:
        ConfigError: its messages are not installed.
    """
    return output_class(controller.type)(node, controller, controller.topic)
