"""Turns a node graph into a launch description. Imports ``launch``, which has no wheels: only launch files use this."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessStart
from launch.logging import get_logger
from launch_ros.actions import LifecycleNode

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.ros.environment import local_environment
from dit_policy_ros.ros.graph import Argument, Graph, NodeSpec, load_graph
from dit_policy_ros.ros.process import PARENT_VARIABLE
from dit_policy_ros.ros.transitions import START_TIMEOUT_S, Transitions

RESPAWN_DELAY_S = 1.0


def describe(name: str) -> LaunchDescription:
    """Returns the launch description of a graph in ``config/nodes``.

    Raises:
        ConfigError: the graph is missing or malformed.
    """
    graph = load_graph(name)
    arguments = [_declare(argument) for argument in graph.arguments.values()]
    # Values are read while launching: read earlier, a file that includes this one could not set them.
    return LaunchDescription([*arguments, OpaqueFunction(function=_start, args=[graph])])


def _declare(argument: Argument) -> DeclareLaunchArgument:
    choices = {"choices": ["true", "false", "True", "False"]} if isinstance(argument.default, bool) else {}
    return DeclareLaunchArgument(
        argument.name,
        default_value=str(argument.default).lower() if choices else str(argument.default),
        description=argument.description,
        **choices,
    )


def _start(context: LaunchContext, graph: Graph) -> list[LaunchDescriptionEntity]:
    values: Mapping[str, str] = context.launch_configurations
    nodes = graph.resolve({name: values[name] for name in graph.arguments})
    added = {name: value for name, value in local_environment().items() if name not in os.environ}
    entities: list[LaunchDescriptionEntity] = [SetEnvironmentVariable(name, value) for name, value in added.items()]
    for spec in nodes:
        node = _lifecycle_node(spec)
        # The handler comes first: the process starts as soon as its action is visited.
        entities += [_autostart(node, spec.name), node]
    return entities


def _lifecycle_node(spec: NodeSpec) -> LifecycleNode:
    return LifecycleNode(
        package="dit_policy_ros",
        executable=spec.executable,
        name=spec.name,
        namespace="",
        parameters=[dict(spec.parameters)] if spec.parameters else [],
        remappings=list(spec.remappings.items()),
        output="screen",
        respawn=spec.respawn,
        respawn_delay=RESPAWN_DELAY_S,
        additional_env={PARENT_VARIABLE: str(os.getpid())},
    )


def _autostart(node: LifecycleNode, name: str) -> RegisterEventHandler:
    """Configures and activates at every start of the process, on any version of launch_ros.

    Its own transition events, and the autostart of newer versions, ask once, and a node that died a moment ago still
    seems to listen; so a node that is started again would never be configured.
    """
    return RegisterEventHandler(
        OnProcessStart(target_action=node, on_start=[OpaqueFunction(function=_bring_up, args=[name])])
    )


def _bring_up(context: LaunchContext, name: str) -> None:
    def check() -> None:
        if context.is_shutdown:
            raise ConfigError("Launch is shutting down.")

    def run() -> None:
        transitions = Transitions(f"start_{name}")
        try:
            transitions.bring_up([name], START_TIMEOUT_S, check)
        except ConfigError as problem:
            if not context.is_shutdown:
                get_logger(name).error(str(problem))
        finally:
            transitions.close()

    threading.Thread(target=run, name=f"start {name}", daemon=True).start()
