"""A live run of real nodes, and the same decisions once more in virtual time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import Repeat, Stage, wait_until
from std_msgs.msg import String
from test_policy_nodes import PickyPolicy, Sensors
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.chunks import message_to_chunk
from dit_policy_ros.ros.executor_node import ExecutorNode
from dit_policy_ros.ros.policy_node import PolicyNode
from dit_policy_ros.runtime.executor import Executor
from dit_policy_ros.runtime.rerun import rerun_fast, rerun_slow
from dit_policy_ros.runtime.schedule import ScheduleConfig

pytestmark = pytest.mark.ros
CALLS = ("activate", "accept", "feedback", "tick")
CONFIG = ScheduleConfig(execution_horizon_s=0.1)


class Waving(PickyPolicy):
    """Moves a little, so that chunks can be told apart."""

    def act(self, observation, context, committed=None):
        chunk = super().act(observation, context, committed)
        wave = 0.02 * np.sin(1e-9 * chunk.times_ns % 1e3)[:, None]
        return replace(chunk, actions=chunk.actions + wave)


@pytest.fixture
def live(stage: Stage, monkeypatch):
    """Three seconds of both systems and the executor; returns nodes, policy, and what the executor was told."""
    told: list[tuple] = []
    for name in CALLS:
        real = getattr(Executor, name)

        def noted(self, *args, real=real, name=name):
            told.append((name, args))
            return real(self, *args)

        monkeypatch.setattr(Executor, name, noted)
    spliced: list = []
    drain = Executor.drain_splices

    def drained(self):
        found = drain(self)
        spliced.extend(found)
        return found

    monkeypatch.setattr(Executor, "drain_splices", drained)
    policy = Waving()
    stage.activate(ExecutorNode, "executor_node")
    node = stage.activate(PolicyNode, "policy_node", {"execution_horizon_s": 0.1}, load=policy.load)
    chunks = stage.hear(JointTrajectory, "/chunk", qos.COMMANDS_IN)
    instruction = stage.speak(String, "/instruction", qos.LATCHED)
    sensors = Sensors(stage, ("top", "left_wrist", "right_wrist"))
    with Repeat(sensors.sense):
        instruction.publish(String(data="red"))
        wait_until(lambda: len(node.fast.system.events.of("chunk")) > 12, "chunks")
        instruction.publish(String(data="blue"))
        before = len(node.fast.system.events.of("chunk"))
        wait_until(lambda: len(node.fast.system.events.of("chunk")) > before + 12, "more chunks")
    stage.change("policy_node", "deactivate")
    stage.change("executor_node", "deactivate")
    return node, policy, told, spliced, [message_to_chunk(message) for message in chunks]


def test_delays_of_a_live_run_give_the_same_decisions_and_splices_again(live) -> None:
    node, policy, told, spliced, chunks = live
    fast, slow = node.fast.system, node.slow.system
    again = rerun_fast(fast.events, policy, CONFIG)
    assert again.decisions() == fast.events.decisions()
    assert rerun_slow(slow.events, CONFIG).decisions() == slow.events.decisions()
    assert len({event.epoch for event in fast.events.of("act")}) == 2
    # Same chunks at the same instants: the executor, told the same at the same times, splices the same.
    virtual, splices = Executor(load_robot("aloha")), []
    for name, args in tuple(told):  # The executor of now notes its calls as well.
        getattr(Executor, name)(virtual, *args)
        splices += virtual._splices
        virtual._splices.clear()
    known = {chunk.observation_ns for chunk in chunks}
    instants = [(splice.stamp_ns, splice.observation_ns) for splice in spliced]
    assert len(instants) > 10
    assert [(splice.stamp_ns, splice.observation_ns) for splice in splices][: len(instants)] == instants
    assert {observation_ns for _, observation_ns in instants} <= known


def test_other_delays_give_other_decisions(live) -> None:
    node, policy, *_ = live
    events = node.fast.system.events
    late = [replace(e, stamp_ns=e.stamp_ns + 200_000_000) if e.kind == "chunk" else e for e in events]
    assert rerun_fast(late, policy, CONFIG).decisions() != events.decisions()
    eager = rerun_fast(events, policy, ScheduleConfig(execution_horizon_s=0.5))
    assert len(eager.of("act")) < len(events.of("act"))
