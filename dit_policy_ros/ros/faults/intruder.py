"""A second commander in a process of its own, as it would be; making its publisher must not hold the relay up.

Reads one line per deed from its standard input: ``{"topic": ..., "joints": [...], "positions": [...]}`` begins to
command, an empty object ends it. Ends with its input.
"""

from __future__ import annotations

import json
import sys

import rclpy
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from dit_policy_ros.ros import qos

FRAME = "intruder"
"""Frame id of its commands."""


def main() -> int:
    """Runs until the input ends."""
    rclpy.init()
    node = rclpy.create_node("intruder")
    publisher = None
    for line in sys.stdin:
        if publisher is not None:
            node.destroy_publisher(publisher)
            publisher = None
        order = json.loads(line)
        if order:
            publisher = node.create_publisher(JointTrajectory, order["topic"], qos.COMMAND)
            publisher.publish(_hold(order["joints"], order["positions"]))
        print("done", flush=True)
    node.destroy_node()
    rclpy.shutdown()
    return 0


def _hold(joints: list[str], positions: list[float]) -> JointTrajectory:
    """A command to stay in half a second at positions."""
    point = JointTrajectoryPoint(positions=positions, velocities=[0.0] * len(joints))
    point.time_from_start.nanosec = 500_000_000
    message = JointTrajectory(joint_names=joints, points=[point])
    message.header.frame_id = FRAME
    return message


if __name__ == "__main__":
    sys.exit(main())
