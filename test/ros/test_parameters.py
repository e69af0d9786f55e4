from __future__ import annotations

from dataclasses import dataclass

import pytest
from harness import Stage
from rclpy.node import Node
from rclpy.parameter import Parameter

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.ros.dit_node import DitOptions
from dit_policy_ros.ros.executor_node import ExecutorOptions
from dit_policy_ros.ros.kinematics_node import KinematicsOptions
from dit_policy_ros.ros.parameters import declare_parameters, parameter, read_parameters
from dit_policy_ros.ros.recorder_node import RecorderOptions
from dit_policy_ros.ros.sim_node import SimOptions
from dit_policy_ros.ros.vlm_node import VlmOptions

pytestmark = pytest.mark.ros


@dataclass(frozen=True)
class Options:
    name: str = parameter("aloha", "A name")
    rate_hz: float = parameter(50.0, "A rate", "Hz", 1.0, 100.0)
    count: int = parameter(3, "A count", "", 0, 10)
    wanted: bool = parameter(True, "A switch")
    joints: tuple[str, ...] = parameter(("a", "b"), "Some names")


def make(stage: Stage, **overrides) -> Node:
    parameters = [Parameter(name, value=value) for name, value in overrides.items()]
    node = Node("options", context=stage.context, parameter_overrides=parameters, use_global_arguments=False)
    try:
        declare_parameters(node, Options)
        return node
    except ConfigError:
        node.destroy_node()
        raise


def test_defaults_and_overrides_arrive_with_their_types(stage: Stage) -> None:
    node = make(stage)
    assert read_parameters(node, Options) == Options()
    node.destroy_node()
    node = make(stage, rate_hz=20.0, joints=["c"], wanted=False)
    assert read_parameters(node, Options) == Options(rate_hz=20.0, joints=("c",), wanted=False)
    node.destroy_node()


def test_descriptors_tell_meaning_unit_and_range(stage: Stage) -> None:
    node = make(stage)
    rate = node.describe_parameter("rate_hz")
    assert rate.description == "A rate [Hz]"
    assert (rate.floating_point_range[0].from_value, rate.floating_point_range[0].to_value) == (1.0, 100.0)
    assert node.describe_parameter("count").integer_range[0].to_value == 10
    node.destroy_node()


@pytest.mark.parametrize("overrides", [{"rate_hz": 1000.0}, {"rate_hz": "fast"}, {"count": 11}, {"wanted": 1}])
def test_values_out_of_range_or_of_another_type_are_refused(stage: Stage, overrides: dict) -> None:
    with pytest.raises(ConfigError, match=f"Parameter {next(iter(overrides))}"):
        make(stage, **overrides)


def test_an_unknown_parameter_is_refused(stage: Stage) -> None:
    node = make(stage, rate=5.0)
    with pytest.raises(ConfigError, match=r"Unknown parameter rate\. options has: name, rate_hz"):
        read_parameters(node, Options)
    node.destroy_node()


@pytest.mark.parametrize(
    "options", [DitOptions, ExecutorOptions, KinematicsOptions, RecorderOptions, SimOptions, VlmOptions]
)
def test_every_node_describes_all_its_parameters(options: type) -> None:
    for field in options.__dataclass_fields__.values():
        assert field.metadata["description"], field.name
        assert type(field.default).__name__ == field.type
