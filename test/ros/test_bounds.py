"""Messages that are too large or come too fast are dropped before anybody takes them apart."""

from __future__ import annotations

import array

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from harness import Stage, wait_until
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, Float64, Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from dit_policy_ros.ros import qos
from dit_policy_ros.ros.bounds import BOUNDS, MAX_JOINTS, RAW, bound_of, too_large
from dit_policy_ros.ros.executor_node import ExecutorNode
from dit_policy_ros.ros.topics import recorded_topics

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    "message",
    [
        JointTrajectory(joint_names=["a"], points=[JointTrajectoryPoint()] * 10_001),
        JointTrajectory(joint_names=[f"j{k}" for k in range(MAX_JOINTS + 1)]),
        JointState(name=["a"] * (MAX_JOINTS + 1)),
        JointState(position=array.array("d", [0.0] * (MAX_JOINTS + 1))),
        String(data="x" * 70_000),
        Float64MultiArray(data=[0.0] * (MAX_JOINTS + 1)),
        CompressedImage(data=bytes(64 * 2**20 + 1)),
        Image(data=array.array("B", bytes(64 * 2**20 + 1))),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_beyond_their_bound_are_named(message):
    assert too_large(bound_of(type(message), raw=False), message).startswith("too large: ")


@pytest.mark.parametrize("message", [JointTrajectory(), JointState(), String(data="hello"), Bool(), Clock(), Float64()])
def test_ordinary_messages_pass(message):
    assert too_large(bound_of(type(message), raw=False), message) == ""


def test_every_type_of_the_graph_has_a_bound_and_a_flood_never_hides_an_e_stop():
    from dit_policy_ros.robot import load_robot

    heard = {topic.type for topic in recorded_topics(load_robot("aloha"))} - {DiagnosticArray}
    assert heard <= BOUNDS.keys()
    assert BOUNDS[Bool].most_hz == float("inf")
    assert too_large(RAW, bytes(10)) == ""


def test_a_node_drops_and_tells(stage: Stage) -> None:
    node = stage.activate(ExecutorNode, "executor_node")
    diagnostics = stage.hear(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
    chunks = stage.speak(JointTrajectory, "/chunk")
    chunks.publish(JointTrajectory(joint_names=["a"], points=[JointTrajectoryPoint()] * 10_001))
    wait_until(lambda: "too large" in node.problems.present.get("input /chunk", ""), "the size to be told")
    assert node._chunks.take() is None
    speed = stage.speak(Float64, "/speed")
    stream = next(stream for stream in node._streams if stream.topic == "/speed")

    def flooded() -> bool:
        for _ in range(50):
            speed.publish(Float64(data=0.5))
        return stream.monitor.dropped > 0

    stream.monitor.most_hz = 1.0
    wait_until(flooded, "the flood to be noticed")

    def told() -> bool:
        statuses = [status for message in diagnostics for status in message.status if status.name.endswith("/speed")]
        values = [{pair.key: pair.value for pair in status.values} for status in statuses]
        return any(int(value["dropped, too fast"]) > 0 for value in values)

    wait_until(told, "the diagnostics to say so")


def test_a_publisher_with_unfit_quality_of_service_is_an_error_in_the_diagnostics(stage: Stage) -> None:
    stage.activate(ExecutorNode, "executor_node")
    diagnostics = stage.hear(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
    stage.client.create_publisher(JointTrajectory, "/chunk", qos.NEWEST)

    def told() -> bool:
        statuses = [status for message in diagnostics for status in message.status if status.name.endswith("/chunk")]
        return any(status.level == b"\x02" and "QoS does not match" in status.message for status in statuses)

    wait_until(told, "the mismatch to be told")
