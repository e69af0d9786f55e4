"""Who may say and hear what: an SROS 2 access control policy made from the node graph.

``python -m dit_policy_ros.ros.security policy > policy.xml`` prints it, in the format of the ROS 2 design article
"ROS 2 Access Control Policies", version 0.2.0; ``ros2 security create_permission`` takes it.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dit_policy_ros.controllers import POSE_CHANNELS
from dit_policy_ros.robot import RobotSpec, load_robot
from dit_policy_ros.ros.graph import NodeSpec, load_graph
from dit_policy_ros.ros.outputs.choice import message_type_of
from dit_policy_ros.ros.topics import marker_topic, recorded_topics

VERSION = "0.2.0"
LIFECYCLE = (
    "change_state",
    "get_state",
    "get_available_states",
    "get_available_transitions",
    "get_transition_graph",
)
PARAMETERS = (
    "describe_parameters",
    "get_parameter_types",
    "get_parameters",
    "list_parameters",
    "set_parameters",
    "set_parameters_atomically",
    "get_type_description",
)


@dataclass(frozen=True)
class Access:
    """What one node needs; names as the node uses them, before remapping."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    reply: tuple[str, ...] = ()
    call: tuple[str, ...] = ()
    """Actions."""


def _images(robot: RobotSpec) -> tuple[str, ...]:
    return tuple(name for camera in robot.cameras.values() for name in (camera.topic, f"{camera.topic}/compressed"))


def _executor(robot: RobotSpec) -> Access:
    commands = tuple(c.topic for c in robot.controllers if not c.type.endswith("gripper_command"))
    actions = tuple(c.topic for c in robot.controllers if c.type.endswith("gripper_command"))
    arms = sorted({joint.arm for joint in robot.joints})
    slots = {joint.slot for joint in robot.joints}
    posed = [arm for arm in arms if all(f"{arm}_{channel}" in slots for channel in POSE_CHANNELS)]
    services = ("~/start", "~/stop", "~/pause", "~/home", "~/e_stop", "~/reset")
    return Access(
        publish=(
            *commands,
            "~/plan",
            "~/status",
            "~/preview",
            "~/interventions",
            *(f"~/preview_{arm}" for arm in posed),
        ),
        subscribe=("chunk", *robot.states_topics, *robot.pose_topics.values(), "e_stop", "enable", "speed"),
        reply=(*services, *(f"~/switch_{arm}" for arm in arms)),
        call=actions,
    )


def _slow(robot: RobotSpec) -> Access:
    heard = (
        *_depths(robot),
        *_images(robot),
        *robot.states_topics,
        *robot.pose_topics.values(),
        robot.instruction_topic,
    )
    return Access(publish=("context",), subscribe=heard)


def _fast(robot: RobotSpec) -> Access:
    heard = (*_depths(robot), *_images(robot), *robot.states_topics, *robot.pose_topics.values(), "context", "plan")
    return Access(publish=("chunk",), subscribe=heard)


def _both(robot: RobotSpec) -> Access:
    slow, fast = _slow(robot), _fast(robot)
    return Access(slow.publish + fast.publish, tuple(dict.fromkeys(slow.subscribe + fast.subscribe)))


def _translator(robot: RobotSpec) -> Access:
    return Access(
        publish=("chunk", "pose_states", "pose_plan"),
        subscribe=(*robot.states_topics, *robot.pose_topics.values(), "pose_chunk", "plan"),
    )


def _simulator(robot: RobotSpec) -> Access:
    said = ("/clock", *robot.joints_by_topic(), robot.instruction_topic, "~/episode", *_images(robot))
    heard = tuple(controller.topic for controller in robot.controllers if message_type_of(controller))
    return Access(publish=said, subscribe=heard, reply=("~/reset",))


def _recorder(robot: RobotSpec) -> Access:
    marker = marker_topic(robot)
    return Access(subscribe=(*(topic.name for topic in recorded_topics(robot)), *((marker,) if marker else ())))


def _depths(robot: RobotSpec) -> tuple[str, ...]:
    topics = [camera.depth_topic for camera in robot.cameras.values() if camera.depth_topic]
    return tuple(name for topic in topics for name in (topic, f"{topic}/compressedDepth"))


ACCESS: Mapping[str, Callable[[RobotSpec], Access]] = {
    "executor_node": _executor,
    "vlm_node": _slow,
    "dit_node": _fast,
    "policy_node": _both,
    "kinematics_node": _translator,
    "sim_node": _simulator,
    "recorder_node": _recorder,
}
"""Executable to what it needs on a robot. Only the executor may publish on a controller's topic."""


def access_of(node: NodeSpec, robot: RobotSpec) -> Access:
    """Returns the full names that a node of a graph needs, after remapping, those of every node included."""
    own = ACCESS[node.executable](robot)

    def names(given: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_full_name(node.remappings.get(name, name), node.name) for name in given))

    return Access(
        publish=names((*own.publish, "/rosout", "/parameter_events", "/diagnostics", "~/transition_event")),
        subscribe=names((*own.subscribe, "/clock", "/parameter_events")),
        reply=names((*own.reply, *(f"~/{service}" for service in (*LIFECYCLE, *PARAMETERS)))),
        call=names(own.call),
    )


def policy_xml(nodes: Sequence[NodeSpec], robot: RobotSpec) -> str:
    """Returns the policy: an enclave per node, and one for the launcher, which takes nodes through their states."""
    root = ElementTree.Element("policy", version=VERSION)
    enclaves = ElementTree.SubElement(root, "enclaves")
    for node in nodes:
        access = access_of(node, robot)
        profile = _profile(enclaves, node.name)
        _rules(profile, "topics", "topic", "publish", access.publish)
        _rules(profile, "topics", "topic", "subscribe", access.subscribe)
        _rules(profile, "services", "service", "reply", access.reply)
        _rules(profile, "actions", "action", "call", access.call)
    launcher = _profile(enclaves, "launcher")
    _rules(launcher, "topics", "topic", "publish", ("/rosout", "/parameter_events"))
    _rules(launcher, "topics", "topic", "subscribe", ("/clock", "/parameter_events"))
    _rules(launcher, "services", "service", "reply", tuple(f"/launcher/{service}" for service in PARAMETERS))
    asked = tuple(f"/{node.name}/{service}" for node in nodes for service in ("change_state", "get_state"))
    _rules(launcher, "services", "service", "request", asked)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _profile(enclaves: ElementTree.Element, node: str) -> ElementTree.Element:
    enclave = ElementTree.SubElement(enclaves, "enclave", path=f"/{node}")
    return ElementTree.SubElement(ElementTree.SubElement(enclave, "profiles"), "profile", ns="/", node=node)


def _rules(profile: ElementTree.Element, group: str, item: str, verb: str, names: Sequence[str]) -> None:
    if not names:
        return
    element = ElementTree.SubElement(profile, group, {verb: "ALLOW"})
    for name in sorted(names):
        ElementTree.SubElement(element, item).text = name


def _full_name(name: str, node: str) -> str:
    if name.startswith("~/"):
        return f"/{node}/{name[2:]}"
    return name if name.startswith("/") else f"/{name}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the policy of a graph: its name, then ``argument:=value`` as for a launch file."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["policy"]
    given = dict(word.split(":=", 1) for word in words[1:])
    nodes = load_graph(words[0]).resolve({"record": True, **given})
    robot = next(node.parameters["robot"] for node in nodes if "robot" in node.parameters)
    print(policy_xml(nodes, load_robot(robot)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
