"""Starts the policy on a simulated robot, as config/nodes/demo.yaml describes."""

from launch import LaunchDescription

from dit_policy_ros.ros.launch_description import describe


def generate_launch_description() -> LaunchDescription:
    return describe("demo")
