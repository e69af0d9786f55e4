from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from harness import HOME, Repeat, Stage, StillPolicy, joint_state, swing, wait_until
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.dit_node import DitNode
from dit_policy_ros.ros.executor_node import ExecutorNode
from dit_policy_ros.ros.kinematics_node import KinematicsNode
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.policy_node import PolicyNode
from dit_policy_ros.ros.recorder_node import RecorderNode
from dit_policy_ros.ros.sim_node import SimNode
from dit_policy_ros.ros.vlm_node import VlmNode

pytestmark = pytest.mark.ros


def still(path: str, threads: int, device: str) -> StillPolicy:
    return StillPolicy()


KINDS = {
    "executor_node": (ExecutorNode, {}),
    "vlm_node": (VlmNode, {"load": still}),
    "dit_node": (DitNode, {"load": still}),
    "policy_node": (PolicyNode, {"load": still}),
    "recorder_node": (RecorderNode, {}),
    "sim_node": (SimNode, {}),
    "kinematics_node": (KinematicsNode, {}),
}
SAFE_ALWAYS = {"/executor_node/e_stop", "/executor_node/reset"}
"""Services that do their work in every state."""
COMMANDS = {"/left_arm_controller/joint_trajectory", "/right_arm_controller/joint_trajectory"}


@pytest.mark.parametrize("name", KINDS)
def test_a_node_is_silent_unless_active_and_leaves_nothing_behind(stage: Stage, name: str, tmp_path) -> None:
    kind, options = KINDS[name]
    parameters = {"directory": str(tmp_path)} if name == "recorder_node" else {}
    heard: dict[str, list] = {}
    diagnostics = stage.hear(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
    node = stage.start(kind, name, parameters, **options)
    assert stage.state(name) == "unconfigured"
    assert stage.publishers_of(name) == set()

    stage.change(name, "configure")
    assert stage.state(name) == "inactive"
    for publisher in node._publishers_made:
        heard[publisher.topic_name] = stage.hear(publisher.msg_type, publisher.topic_name)
    for publisher in node._publishers_made:
        wait_until(lambda publisher=publisher: publisher.get_subscription_count(), f"us on {publisher.topic_name}")
    wait_until(lambda: told(diagnostics, name) == "inactive", "diagnostics of an inactive node")
    assert {topic: len(messages) for topic, messages in heard.items() if messages} == {}

    stage.change(name, "activate")
    assert stage.state(name) == "active"
    wait_until(lambda: told(diagnostics, name) == "active", "diagnostics of an active node")
    parts = {status.name for status in diagnostics[-1].status}
    assert parts >= {f"/{name}: input {stream.topic}" for stream in node._streams}

    stage.change(name, "deactivate", "cleanup")
    assert stage.state(name) == "unconfigured"
    wait_until(lambda: stage.publishers_of(name) == set(), "the publishers to leave the graph")

    stage.change(name, "configure", "activate", "active_shutdown")
    assert stage.state(name) == "finalized"
    wait_until(lambda: stage.publishers_of(name) == set(), "the publishers to leave the graph")


def told(diagnostics: list[DiagnosticArray], name: str) -> str:
    """Returns the lifecycle state that a node last told in its diagnostics."""
    statuses = [status for message in diagnostics for status in message.status if status.name == f"/{name}"]
    return next((v.value for s in reversed(statuses) for v in s.values if v.key == "lifecycle"), "")


@pytest.mark.parametrize("name", KINDS)
def test_a_failing_configure_leaves_a_traceback_in_the_log_and_the_reason_in_diagnostics(
    stage: Stage, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    kind, options = KINDS[name]

    def fail(self) -> None:
        raise ZeroDivisionError("told to")

    monkeypatch.setattr(kind, "configure", fail)
    diagnostics = stage.hear(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
    stage.start(kind, name, **options)
    with pytest.raises(ConfigError, match="refused"):
        stage.change(name, "configure")
    assert stage.state(name) == "unconfigured"
    assert stage.publishers_of(name) == set()
    reason = "cannot configure: ZeroDivisionError('told to')"
    wait_until(lambda: diagnostics and reason in diagnostics[-1].status[0].message, "the reason")
    assert diagnostics[-1].status[0].level == b"\x02"
    assert "Traceback (most recent call last)" in capfd.readouterr().err


@pytest.mark.parametrize("name", KINDS)
def test_services_refuse_while_inactive_and_what_was_heard_then_is_forgotten(stage: Stage, name: str, tmp_path) -> None:
    kind, options = KINDS[name]
    node = stage.start(kind, name, {"directory": str(tmp_path)} if name == "recorder_node" else {}, **options)
    stage.change(name, "configure")
    for service in node._services_made:
        full_name = node.resolve_service_name(service.srv_name)
        if full_name in SAFE_ALWAYS:
            continue
        client = stage.client.create_client(service.srv_type, full_name)
        wait_until(client.service_is_ready, full_name)
        answer = client.call(service.srv_type.Request(), timeout_sec=10.0)
        assert not answer.success, full_name
        assert "active" in answer.message, full_name
    if name == "executor_node":
        chunks = stage.speak(JointTrajectory, "/chunk")
        commands = stage.hear(JointTrajectory, "/left_arm_controller/joint_trajectory", qos.COMMANDS_IN)
        chunks.publish(swing(stage.now_ns()))
        wait_until(lambda: any(s.monitor.count for s in node._streams if s.topic == "/chunk"), "the chunk to arrive")
        joints = stage.speak(JointState, "/joint_states")
        with Repeat(lambda: joints.publish(joint_state(stage.now_ns(), dict(HOME)))):
            stage.change(name, "activate")
            wait_until(lambda: node.measure()["state"] == "holding", "the node to hold")
        assert commands == []


@pytest.mark.parametrize("name", KINDS)
def test_a_node_keeps_its_hands_off_the_attributes_of_rclpy(stage: Stage, name: str) -> None:
    kind, options = KINDS[name]
    plain = LifecycleNode("plain", context=stage.context, use_global_arguments=False)
    taken = set(vars(plain)) | set(dir(LifecycleNode))
    plain.destroy_node()
    node = stage.start(kind, name, **options)
    before = dict(vars(node))
    stage.change(name, "configure", "activate", "deactivate")
    changed = {key for key, value in vars(node).items() if key not in before or before[key] is not value}
    assert not changed & taken
    assert not set(vars(kind)) & taken - {"__init__", "__module__", "__doc__"}


def test_only_the_executor_publishes_commands(stage: Stage) -> None:
    for name, (kind, options) in KINDS.items():
        stage.start(kind, name, **options)
        stage.change(name, "configure")
    wait_until(lambda: stage.publishers_of("executor_node") >= COMMANDS, "the executor's publishers")
    for name in KINDS.keys() - {"executor_node"}:
        assert not stage.publishers_of(name) & COMMANDS


def test_a_refused_transition_leaves_the_state_and_can_be_tried_again(stage: Stage) -> None:
    node = stage.start(ExecutorNode, "executor_node", {"robot": "no_such_robot"})
    with pytest.raises(ConfigError, match="refused"):
        stage.change("executor_node", "configure")
    assert stage.state("executor_node") == "unconfigured"
    assert stage.publishers_of("executor_node") == set()
    node.set_parameters([_text("robot", "aloha")])
    stage.change("executor_node", "configure")
    assert stage.state("executor_node") == "inactive"


class Fragile(ManagedNode):
    """Fails wherever it is told to."""

    OPTIONS = ExecutorNode.OPTIONS
    fails_in = ""

    def activate(self) -> None:
        if self.fails_in == "activate":
            raise ZeroDivisionError("told to")
        self.start_worker("worker", self.work)

    def deactivate(self) -> None:
        if self.fails_in == "deactivate":
            raise ZeroDivisionError("told to")

    def work(self) -> None:
        if self.fails_in == "work":
            raise ZeroDivisionError("told to")


@pytest.mark.parametrize(
    ("fails_in", "steps", "state"),
    [
        ("activate", ("configure", "activate"), "inactive"),
        ("deactivate", ("configure", "activate", "deactivate"), "unconfigured"),
    ],
)
def test_an_exception_in_a_transition_does_not_leave_the_node_half_way(
    stage: Stage, fails_in: str, steps: tuple[str, ...], state: str
) -> None:
    node = stage.start(Fragile, "fragile")
    node.fails_in = fails_in
    with pytest.raises(ConfigError, match="refused"):
        stage.change("fragile", *steps)
    assert stage.state("fragile") == state
    assert not node.is_active
    assert not any(publisher.is_activated for publisher in node._publishers_made)


def test_an_unexpected_error_in_a_worker_breaks_the_node(stage: Stage) -> None:
    node = stage.start(Fragile, "fragile")
    node.fails_in = "work"
    stage.change("fragile", "configure", "activate")
    wait_until(lambda: node.is_broken, "the node to notice")


def test_diagnostics_carry_what_is_wrong(stage: Stage) -> None:
    heard = stage.hear(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
    stage.activate(VlmNode, "vlm_node", load=still)
    status = wait_until(lambda: told(heard, "vlm_node") == "active" and heard[-1].status[0], "diagnostics")
    assert status.level == b"\x01", "waiting for a start is no error yet"
    assert "instruction: none received on /instruction" in status.message


def _text(name: str, value: str):
    from rclpy.parameter import Parameter

    return Parameter(name, value=value)
