from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.resources import share_directory
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros.environment import PROFILE, PROFILE_VARIABLES, SMALL_PROFILE, local_environment
from dit_policy_ros.ros.graph import EXECUTABLES, load_graph
from dit_policy_ros.ros.topics import recorded_topics

SHIPPED = sorted(path.stem for path in (share_directory() / "config" / "nodes").glob("*.yaml"))
PARAMETERS = {
    "sim_node": "SimOptions",
    "executor_node": "ExecutorOptions",
    "vlm_node": "VlmOptions",
    "dit_node": "DitOptions",
    "policy_node": "PolicyOptions",
    "kinematics_node": "KinematicsOptions",
    "recorder_node": "RecorderOptions",
}
# Private topics as the demo graph maps them.
MAPPED = {name: f"/executor_node/{name}" for name in ("plan", "status", "preview", "interventions")}
MAPPED["episode"] = "/sim_node/episode"
GRAPH_TOPICS = {
    MAPPED.get(topic.name, topic.name if topic.name.startswith("/") else f"/{topic.name}")
    for topic in recorded_topics(load_robot("aloha"))
}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "graph.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_graphs_name_real_nodes_and_real_parameters(name: str) -> None:
    graph = load_graph(name)
    for node in (*graph.resolve({"record": True}), *graph.resolve({"one_process": True})):
        module = importlib.import_module(f"dit_policy_ros.ros.{node.executable}")
        options = getattr(module, PARAMETERS[node.executable]).__dataclass_fields__
        for parameter, value in node.parameters.items():
            if parameter != "use_sim_time":
                assert type(value) is type(options[parameter].default), f"{node.name}: {parameter}"


def test_the_demo_is_the_policy_with_a_simulator_and_its_clock() -> None:
    policy, demo = load_graph("policy"), load_graph("demo")
    names = [node.name for node in demo.resolve({})]
    assert names == ["sim_node", "recorder_node", "executor_node", "vlm_node", "dit_node"]
    assert [node.name for node in policy.resolve({})] == ["executor_node", "vlm_node", "dit_node"]
    for graph, expected in ((policy, False), (demo, True)):
        for node in graph.resolve({"record": "true"}):
            assert node.name == "sim_node" or node.parameters["use_sim_time"] is expected


def test_one_process_takes_the_place_of_two() -> None:
    names = [node.name for node in load_graph("policy").resolve({"one_process": True, "continuity": "splice"})]
    assert names == ["executor_node", "policy_node"]
    node = load_graph("policy").resolve({"one_process": True, "continuity": "splice", "execution_horizon_s": 0.4})[-1]
    assert (node.parameters["continuity"], node.parameters["execution_horizon_s"]) == ("splice", 0.4)


def test_only_the_slow_system_is_started_again() -> None:
    assert [node.name for node in load_graph("demo").resolve({}) if node.respawn] == ["vlm_node"]


def test_arguments_reach_parameters_with_the_type_of_their_default() -> None:
    nodes = {node.name: node for node in load_graph("demo").resolve({"seed": "7", "real_time_factor": "2"})}
    assert nodes["sim_node"].parameters["seed"] == 7
    assert nodes["sim_node"].parameters["real_time_factor"] == 2.0
    assert isinstance(nodes["sim_node"].parameters["real_time_factor"], float)


@pytest.mark.parametrize(
    ("given", "text"),
    [({"sead": "7"}, "'sead' does not exist"), ({"seed": "many"}, "type int"), ({"record": "maybe"}, "type bool")],
)
def test_wrong_arguments_are_refused(given: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load_graph("demo").resolve(given)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nodes: {}", "lacks arguments"),
        ("arguments: {}\nnodes: {x: {executable: rm}}", "'rm' does not exist"),
        ("arguments: {}\nnodes: {dit_node: {parameters: {policy: $(p)}}}", "'p' does not exist"),
        ("arguments: {}\nnodes: {dit_node: {params: {}}}", "unknown params"),
        ("arguments: {a: {default: 1, description: x}}\nnodes: {dit_node: {when: a}}", "true or false"),
        ("include: policy\narguments: {}\nnodes: {dit_node: {}}", "appears twice"),
        ("arguments: {a: {default: [1], description: x}}\nnodes: {}", "bool, number or text"),
    ],
)
def test_malformed_graphs_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_graph(write(tmp_path, text))


def test_executables_are_modules_and_console_scripts() -> None:
    setup = (share_directory() / "setup.py").read_text()
    for name in EXECUTABLES:
        assert importlib.util.find_spec(f"dit_policy_ros.ros.{name}")
        assert f'"{name}"' in setup


def test_every_launch_file_compiles_and_describes_a_shipped_graph() -> None:
    files = sorted((share_directory() / "launch").glob("*.launch.py"))
    assert [file.name.partition(".")[0] for file in files] == SHIPPED
    for file in files:
        compile(file.read_text(), file, "exec")
        assert f'describe("{file.name.partition(".")[0]}")' in file.read_text()


@pytest.mark.parametrize(("profile", "segment", "message"), [(PROFILE, 32, 8), (SMALL_PROFILE, 2, 1)])
def test_the_dds_profiles_have_shared_memory_and_stay_on_this_machine(profile, segment, message) -> None:
    name = "{http://www.eprosima.com}"
    root = ElementTree.parse(share_directory() / "config" / "dds" / profile).getroot()
    transports = {node.findtext(f"{name}type"): node for node in root.iter(f"{name}transport_descriptor")}
    assert transports.keys() == {"SHM", "UDPv4"}
    assert int(transports["SHM"].findtext(f"{name}segment_size")) == segment * 2**20
    assert int(transports["SHM"].findtext(f"{name}maxMessageSize")) == message * 2**20
    assert [address.text for address in transports["UDPv4"].iter(f"{name}address")] == ["127.0.0.1"]
    assert root.find(f".//{name}participant").get("is_default_profile") == "true"


def test_what_a_user_set_in_the_environment_stands() -> None:
    assert local_environment({})["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert Path(local_environment({"ROS_DISTRO": "kilted"})["FASTDDS_DEFAULT_PROFILES_FILE"]).exists()
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" in local_environment({"ROS_DISTRO": "jazzy"})
    assert local_environment({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"})["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "SUBNET"


def _leaves(layout) -> list[str]:
    return [layout] if isinstance(layout, str) else [*_leaves(layout["first"]), *_leaves(layout["second"])]


def _topic(path: str) -> str:
    return path.partition(".")[0]


def test_the_foxglove_layout_shows_topics_of_the_graph() -> None:
    layout = json.loads((share_directory() / "config" / "foxglove" / "dit_policy.json").read_text())
    panels = layout["configById"]
    assert sorted(_leaves(layout["layout"])) == sorted(panels)
    shown = {_topic(panel["topicPath"]) for panel in panels.values() if "topicPath" in panel}
    shown |= {panel["imageMode"]["imageTopic"] for panel in panels.values() if "imageMode" in panel}
    shown |= {_topic(path["value"]) for panel in panels.values() for path in panel.get("paths", [])}
    shown |= {panel["topicName"] for panel in panels.values() if "topicName" in panel}
    assert shown <= GRAPH_TOPICS
    joints = {path["label"]: path["value"] for path in panels["Plot!right"]["paths"]}
    order = load_robot("aloha").names
    for label, path in joints.items():
        index = int(path.partition("[")[2].rstrip("]"))
        assert order[index] == f"right_{label.replace(' ', '_')}"


def test_the_rviz_configuration_shows_the_robots_cameras() -> None:
    text = (share_directory() / "config" / "rviz" / "dit_policy.rviz").read_text()
    displays = yaml.safe_load(text)["Visualization Manager"]["Displays"]
    cameras = load_robot("aloha").cameras.values()
    assert {display["Topic"]["Value"] for display in displays} == {camera.topic for camera in cameras}


@pytest.mark.parametrize(
    ("set_before", "variable", "value"),
    [
        (local_environment({"ROS_DISTRO": "kilted"}), "FASTDDS_DEFAULT_PROFILES_FILE", SMALL_PROFILE),
        (local_environment({"ROS_DISTRO": "jazzy"}), "FASTRTPS_DEFAULT_PROFILES_FILE", SMALL_PROFILE),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": "/mine/own.xml"}, "FASTDDS_DEFAULT_PROFILES_FILE", "own.xml"),
        ({}, "FASTDDS_DEFAULT_PROFILES_FILE", ""),
        ({}, "MUJOCO_GL", "disable"),
        ({"MUJOCO_GL": "egl"}, "MUJOCO_GL", "egl"),
    ],
)
def test_a_lean_process_takes_the_small_profile_and_no_renderer_unless_told_otherwise(set_before, variable, value):
    code = "import os; from dit_policy_ros.ros.lean import use_little_memory; use_little_memory(); "
    code += f"print(os.path.basename(os.environ.get('{variable}', '')))"
    clean = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", *PROFILE_VARIABLES)}
    run = subprocess.run([sys.executable, "-c", code], env={**clean, **set_before}, capture_output=True, text=True)
    assert (run.stdout.strip(), run.stderr) == (value, "")
