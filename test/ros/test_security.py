"""The access policy: its form, that it covers what nodes really do, and that it grants commands to one node only."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from harness import Stage, wait_until
from test_lifecycle import KINDS

from dit_policy_ros.resources import share_directory
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros.graph import EXECUTABLES, NodeSpec, load_graph
from dit_policy_ros.ros.security import ACCESS, VERSION, access_of, main, policy_xml

pytestmark = pytest.mark.ros
ROBOT = load_robot("aloha")
SHIPPED = sorted(path.stem for path in (share_directory() / "config" / "nodes").glob("*.yaml"))
CHILDREN = {
    "policy": {"enclaves"},
    "enclaves": {"enclave"},
    "enclave": {"profiles"},
    "profiles": {"profile"},
    "profile": {"topics", "services", "actions"},
    "topics": {"topic"},
    "services": {"service"},
    "actions": {"action"},
}
"""Of the policy's schema."""
VERBS = {"topics": {"publish", "subscribe"}, "services": {"reply", "request"}, "actions": {"call", "execute"}}


def check(element: ElementTree.Element) -> None:
    """Follows the schema down."""
    for child in element:
        assert child.tag in CHILDREN[element.tag]
        if child.tag in VERBS:
            assert set(child.attrib) <= VERBS[child.tag]
            assert set(child.attrib.values()) == {"ALLOW"}
            assert len(child)
        if child.tag in CHILDREN:
            check(child)
        else:
            assert child.text.startswith("/")
            assert "~" not in child.text


def test_every_executable_has_its_access():
    assert ACCESS.keys() == set(EXECUTABLES)


@pytest.mark.parametrize("graph", SHIPPED)
def test_the_policy_of_a_graph_follows_the_schema(graph: str, capsys: pytest.CaptureFixture) -> None:
    assert main([graph, "record:=true"]) == 0
    root = ElementTree.fromstring(capsys.readouterr().out)
    assert (root.tag, root.get("version")) == ("policy", VERSION)
    check(root)
    nodes = [node.name for node in load_graph(graph).resolve({"record": True})]
    assert [profile.get("node") for profile in root.iter("profile")] == [*nodes, "launcher"]


def test_only_the_executor_may_command() -> None:
    topics = {controller.topic for controller in ROBOT.controllers}
    root = ElementTree.fromstring(policy_xml(load_graph("demo").resolve({"record": True}), ROBOT))
    allowed = {
        profile.get("node")
        for profile in root.iter("profile")
        for group in profile.iter("topics")
        if group.get("publish") and {topic.text for topic in group} & topics
    }
    assert allowed == {"executor_node"}


def test_remapped_names_are_what_is_allowed() -> None:
    nodes = {node.name: node for node in load_graph("demo").resolve({"record": True})}
    heard = access_of(nodes["recorder_node"], ROBOT).subscribe
    assert "/executor_node/plan" in heard
    assert "/plan" not in heard


@pytest.mark.parametrize("name", KINDS)
def test_a_real_node_needs_nothing_that_the_policy_denies(stage: Stage, name: str, tmp_path) -> None:
    kind, options = KINDS[name]
    stage.start(kind, name, {"directory": str(tmp_path)} if name == "recorder_node" else {}, **options)
    stage.change(name, "configure")
    access = access_of(NodeSpec(name, name), ROBOT)
    client = stage.client
    change = f"/{name}/change_state"
    wait_until(lambda: change in dict(client.get_service_names_and_types_by_node(name, "/")), "the services")
    wait_until(lambda: len(client.get_publisher_names_and_types_by_node(name, "/")) >= 3, "the publishers")
    found = [
        {topic for topic, _ in listed(name, "/")}
        for listed in (
            client.get_publisher_names_and_types_by_node,
            client.get_subscriber_names_and_types_by_node,
            client.get_service_names_and_types_by_node,
        )
    ]
    for needed, allowed in zip(found, (access.publish, access.subscribe, access.reply), strict=True):
        assert needed - set(allowed) == set()


@pytest.mark.parametrize("files", [(), ("identity_ca.cert.pem", "cert.pem", "key.pem", "permissions_ca.cert.pem")])
def test_enforced_security_is_never_left_out(files: tuple[str, ...], tmp_path) -> None:
    """A keystore that is empty or worth nothing, and a middleware without its plugins, keep a node from starting."""
    (tmp_path / "enclaves").mkdir()
    for name in (*files, "governance.p7s", "permissions.p7s"):
        (tmp_path / "enclaves" / name).touch()
    secure = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce", "ROS_SECURITY_KEYSTORE": str(tmp_path)}
    command = [sys.executable, "-m", "dit_policy_ros.ros.executor_node"]
    run = subprocess.run(command, env={**os.environ, **secure}, capture_output=True, text=True, timeout=60)
    assert run.returncode != 0
    assert "security" in run.stderr.lower()
