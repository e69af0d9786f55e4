"""Runs only where ROS 2's launch system is installed, which has no wheels."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location

import pytest

from dit_policy_ros.resources import share_directory
from dit_policy_ros.ros.environment import local_environment
from dit_policy_ros.ros.graph import load_graph

# Our own launch/ folder may be found as an empty package of that name.
pytest.importorskip("launch.actions")
pytest.importorskip("launch_ros.actions")

from launch import LaunchContext
from launch.actions import OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import LifecycleNode

pytestmark = pytest.mark.ros


def description(name: str):
    path = share_directory() / "launch" / f"{name}.launch.py"
    spec = spec_from_file_location("a_launch_file", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


@pytest.mark.parametrize("name", ["demo", "policy"])
def test_every_argument_is_declared_with_default_and_description(name: str) -> None:
    declared = {argument.name: argument for argument in description(name).get_launch_arguments()}
    graph = load_graph(name)
    assert declared.keys() == graph.arguments.keys()
    for argument in graph.arguments.values():
        assert declared[argument.name].description.startswith(argument.description)
        default = declared[argument.name].default_value[0].text
        assert argument.parse(default) == argument.default


@pytest.mark.parametrize("name", ["demo", "policy"])
def test_the_nodes_of_the_graph_are_started_with_the_values_given(name: str, monkeypatch) -> None:
    for variable in local_environment({}):
        monkeypatch.delenv(variable, raising=False)
    context = LaunchContext()
    launch = description(name)
    for argument in launch.get_launch_arguments():
        argument.visit(context)
    context.launch_configurations["policy"] = "some/where"
    context.launch_configurations["record"] = "true"
    (start,) = [entity for entity in launch.entities if isinstance(entity, OpaqueFunction)]
    entities = start.execute(context)
    nodes = [entity for entity in entities if isinstance(entity, LifecycleNode)]
    wanted = load_graph(name).resolve({"policy": "some/where", "record": True})
    assert [node.node_executable for node in nodes] == [node.executable for node in wanted]
    assert all(node.node_package == "dit_policy_ros" for node in nodes)
    first = entities.index(nodes[0])
    settings = [entity for entity in entities[:first] if isinstance(entity, SetEnvironmentVariable)]
    assert {setting.name[0].text for setting in settings} == local_environment({}).keys()
