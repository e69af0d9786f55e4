"""The whole graph in its own processes."""

from __future__ import annotations

import dataclasses
import os
import signal

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from harness import DOMAIN, Stage, wait_until
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from tiny_policy import TARGET, save_tiny_policy

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.joints import joint_state_to_sample
from dit_policy_ros.ros.graph import load_graph
from dit_policy_ros.ros.launcher import Launcher
from dit_policy_ros.sim.body import JOINT_NAMES

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def demo(policy, respawn: bool = True, **arguments):
    given = {"record": False, "world": "aloha_transfer_cube", "policy": str(policy), **arguments}
    nodes = load_graph("demo").resolve(given)
    return [dataclasses.replace(node, respawn=respawn and node.respawn) for node in nodes]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_demo_graph_moves_the_arms_survives_its_slow_model_and_leaves_nothing_running(
    stage: Stage, tmp_path
) -> None:
    status = stage.hear(String, "/executor_node/status", qos.STATUS)
    joints = stage.hear(JointState, "/joint_states", qos.SENSOR)
    events: list[str] = []
    policy = save_tiny_policy(tmp_path / "policy")
    with Launcher(demo(policy), tmp_path / "log", events.append, DOMAIN) as graph:
        pids = [graph.pid(name) for name in ("sim_node", "executor_node", "vlm_node", "dit_node")]

        def distance() -> float:
            measured = joint_state_to_sample(joints[-1], JOINT_NAMES).positions
            return max(abs(measured[name] - goal) for name, goal in zip(JOINT_NAMES[:6], TARGET, strict=False))

        wait_until(lambda: joints and distance() < 0.05, "the left arm to reach its target", 60.0)
        os.kill(graph.pid("vlm_node"), signal.SIGKILL)
        wait_until(lambda: events, "the launcher to notice")
        assert "vlm_node ended with code -9" in events[0]
        wait_until(lambda: any("stopping: " in message.data for message in status), "the arms to stop", 60.0)
        status.clear()
        wait_until(lambda: any("moving" in message.data for message in status), "the arms to go on", 60.0)
        pids.append(graph.pid("vlm_node"))
        assert graph.failure == ""
    assert not any(alive(pid) for pid in pids)
    positions = np.array([list(message.position) for message in joints])
    assert np.abs(np.diff(positions, axis=0)).max() < 0.2


def test_a_dead_node_that_is_not_started_again_is_a_failure(stage: Stage, tmp_path) -> None:
    diagnostics = stage.hear(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
    nodes = [node for node in demo("unused") if node.name in ("sim_node", "executor_node")]
    with Launcher(nodes, tmp_path, domain_id=DOMAIN) as graph:
        wait_until(lambda: len({message.status[0].name for message in diagnostics}) == 2, "both nodes")
        os.kill(graph.pid("executor_node"), signal.SIGKILL)
        wait_until(lambda: graph.failure, "the launcher to notice")
        assert "executor_node ended with code -9" in graph.failure


def test_a_missing_policy_is_told_in_one_line_and_everything_ends(tmp_path) -> None:
    with pytest.raises(ConfigError) as problem, Launcher(demo("no_such_policy"), tmp_path, domain_id=DOMAIN):
        pass
    text = str(problem.value)
    assert "No policy at 'no_such_policy'" in text
    assert "\n" not in text
