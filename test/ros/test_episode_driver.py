from __future__ import annotations

import pytest
from harness import DOMAIN, Stage
from std_msgs.msg import String

from dit_policy_ros.errors import WorldError
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.episode_driver import EpisodeDriver
from dit_policy_ros.ros.executor_node import ExecutorNode
from dit_policy_ros.ros.sim_node import SimNode

pytestmark = pytest.mark.ros


def test_episodes_of_given_seeds_run_to_their_end_with_the_arms_stopped_at_each_reset(stage: Stage) -> None:
    status = stage.hear(String, "/executor_node/status", qos.RECORD)
    stage.activate(SimNode, "sim_node", {"world": "aloha_transfer_cube", "real_time_factor": 10.0})
    stage.activate(ExecutorNode, "executor_node")
    with EpisodeDriver(domain_id=DOMAIN) as driver:
        states = [driver.run(seed) for seed in (5, 6)]
    assert [(state.seed, state.is_done) for state in states] == [(5, True), (6, True)]
    assert sum("holding: disabled" in message.data for message in status) == 2


def test_a_graph_without_executor_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dit_policy_ros.ros.episode_driver.SERVICE_TIMEOUT_S", 5.0)
    stage.activate(SimNode, "sim_node", {"world": "aloha_transfer_cube"})
    with EpisodeDriver(domain_id=DOMAIN) as driver, pytest.raises(WorldError, match="executor_node does not answer"):
        driver.run(5)
