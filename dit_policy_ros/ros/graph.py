"""The node graph as one YAML file, read by the launch files and by the launcher alike."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dit_policy_ros.errors import ConfigError, one_of
from dit_policy_ros.resources import find_config
from dit_policy_ros.strict_yaml import fields_of, load_yaml_mapping

EXECUTABLES = ("sim_node", "recorder_node", "executor_node", "vlm_node", "dit_node", "policy_node", "kinematics_node")
NOT = "not "
_REFERENCE = re.compile(r"\$\((\w+)\)")


@dataclass(frozen=True)
class Argument:
    """Something a user may set when starting the graph."""

    name: str
    default: bool | int | float | str
    """Its type is the argument's."""
    description: str

    def parse(self, text: str) -> bool | int | float | str:
        """Returns a value of the argument's type.

        Raises:
            ConfigError: the text is no such value.
        """
        if isinstance(self.default, str):
            return text
        value = yaml.safe_load(text)
        if isinstance(self.default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not type(self.default):
            kind = type(self.default).__name__
            raise ConfigError(f"Argument {self.name} is '{text}'; it must be of type {kind}: {self.description}")
        return value


@dataclass(frozen=True)
class Reference:
    """The value of an argument, not known yet."""

    argument: str


@dataclass(frozen=True)
class NodeSpec:
    """One process with one lifecycle node."""

    name: str
    executable: str
    """Module in ``dit_policy_ros.ros``, and console script of the package."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Parameter name to value or ``Reference``."""
    remappings: Mapping[str, str] = field(default_factory=dict)
    respawn: bool = False
    """Start it again when it dies."""
    when: str = ""
    """Name of a boolean argument without which, or with "not " before it with which, the node stays away; "" means
    always."""


@dataclass(frozen=True)
class Graph:
    """Arguments and nodes, in the order of starting."""

    arguments: Mapping[str, Argument]
    nodes: tuple[NodeSpec, ...]

    def resolve(self, given: Mapping[str, str | bool | int | float]) -> tuple[NodeSpec, ...]:
        """Returns the nodes to start, with every reference replaced by a value.

        Args:
            given: argument name to value, or to its text.

        Raises:
            ConfigError: an argument is unknown or has the wrong type.
        """
        for name in given:
            if name not in self.arguments:
                raise ConfigError(one_of("Argument", name, self.arguments))
        values = {
            name: argument.parse(str(given[name])) if name in given else argument.default
            for name, argument in self.arguments.items()
        }

        def replace(node: NodeSpec) -> NodeSpec:
            parameters = {
                name: values[value.argument] if isinstance(value, Reference) else value
                for name, value in node.parameters.items()
            }
            return dataclasses.replace(node, parameters=parameters)

        return tuple(replace(node) for node in self.nodes if _is_wanted(node, values))


def _is_wanted(node: NodeSpec, values: Mapping[str, Any]) -> bool:
    name = node.when.removeprefix(NOT)
    return not name or values[name] != node.when.startswith(NOT)


def load_graph(path: str | Path) -> Graph:
    """Loads a graph and what it includes.

    Args:
        path: a YAML file, or the bare name of one shipped in ``config/nodes``.

    Raises:
        ConfigError: the file is missing, malformed, or refers to an argument that does not exist.
    """
    path = find_config("nodes", path)
    top = fields_of(
        load_yaml_mapping(path, ConfigError), str(path), ConfigError, ("arguments", "nodes"), optional=("include",)
    )
    included = load_graph(top["include"]) if "include" in top else Graph({}, ())
    arguments = {**included.arguments, **_parse_arguments(top["arguments"], str(path))}
    nodes = (*(_parse_node(str(name), entry, str(path)) for name, entry in top["nodes"].items()), *included.nodes)
    _check(arguments, nodes, str(path))
    return Graph(arguments, nodes)


def _parse_arguments(entries: Mapping[str, Any], where: str) -> dict[str, Argument]:
    parsed = {}
    for name, entry in entries.items():
        values = fields_of(entry, f"{where}: argument {name}", ConfigError, ("default", "description"))
        if not isinstance(values["default"], (bool, int, float, str)):
            raise ConfigError(f"{where}: argument {name}: the default must be a bool, number or text.")
        parsed[str(name)] = Argument(str(name), values["default"], str(values["description"]))
    return parsed


def _parse_node(name: str, entry: Any, where: str) -> NodeSpec:
    place = f"{where}: node {name}"
    values = fields_of(entry, place, ConfigError, (), ("executable", "parameters", "remappings", "respawn", "when"))
    executable = str(values.get("executable", name))
    if executable not in EXECUTABLES:
        raise ConfigError(f"{place}: {one_of('Executable', executable, EXECUTABLES)}")
    return NodeSpec(
        name=name,
        executable=executable,
        parameters={str(key): _parse_value(value) for key, value in values.get("parameters", {}).items()},
        remappings={str(key): str(value) for key, value in values.get("remappings", {}).items()},
        respawn=bool(values.get("respawn", False)),
        when=str(values.get("when", "")),
    )


def _parse_value(value: Any) -> Any:
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return Reference(found.group(1)) if found else value


def _check(arguments: Mapping[str, Argument], nodes: tuple[NodeSpec, ...], where: str) -> None:
    names = [node.name for node in nodes]
    if len(set(names)) != len(names):
        raise ConfigError(f"{where}: a node appears twice among {', '.join(names)}; give each its own name.")
    for node in nodes:
        references = [value.argument for value in node.parameters.values() if isinstance(value, Reference)]
        for name in (*references, *([node.when.removeprefix(NOT)] if node.when else [])):
            if name not in arguments:
                raise ConfigError(f"{where}: node {node.name}: {one_of('Argument', name, arguments)}")
        name = node.when.removeprefix(NOT)
        if name and not isinstance(arguments[name].default, bool):
            raise ConfigError(f"{where}: node {node.name}: argument {name} under 'when' must be true or false.")
