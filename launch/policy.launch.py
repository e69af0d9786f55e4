"""Starts the policy on a robot whose drivers and controllers run already, as config/nodes/policy.yaml describes."""

from launch import LaunchDescription

from dit_policy_ros.ros.launch_description import describe


def generate_launch_description() -> LaunchDescription:
    return describe("policy")
