"""Every kind of tampering does what it is named after."""

from __future__ import annotations

import array
import math
import random
import time

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState

from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros.faults.catalogue import FAULTS
from dit_policy_ros.ros.faults.scripted_policy import ScriptedPolicy
from dit_policy_ros.ros.faults.tampering import KINDS, Tamperer
from dit_policy_ros.types import ActionChunk, Observation

NAMES = load_robot("aloha").names


def state(number: int) -> bytes:
    return serialize_message(JointState(name=list(NAMES), position=array.array("d", [0.1 * number] * len(NAMES))))


def after(kind: str, count: int = 4) -> list[tuple[float, bytes]]:
    tamperer = Tamperer(JointState, kind, random.Random(0))
    return [arrived for number in range(count) for arrived in tamperer(state(number))]


def first_values(kind: str) -> list[float]:
    return [round(deserialize_message(cdr, JointState).position[0], 3) for _, cdr in after(kind)]


def test_order_and_number_of_messages():
    assert first_values("frozen") == [0.0] * 4
    assert first_values("reordered") == [0.1, 0.0, 0.3, 0.2]
    assert first_values("duplicated")[:3] == [0.0] * 3
    assert after("dropped") == []
    assert [delay for delay, _ in after("delayed")] == [0.4] * 4


@pytest.mark.parametrize(
    ("kind", "test"), [("not a number", math.isnan), ("infinite", math.isinf), ("huge", lambda v: v == 1e12)]
)
def test_one_value_is_replaced(kind: str, test):
    for _, cdr in after(kind):
        values = deserialize_message(cdr, JointState).position
        assert sum(test(value) for value in values) == 1


def test_names_sizes_and_bits():
    (_, cdr), *_ = after("wrong names")
    assert "nobody" in deserialize_message(cdr, JointState).name
    (_, cdr), *_ = after("wrong sizes")
    assert len(deserialize_message(cdr, JointState).position) == len(NAMES) - 1
    for number, (_, cdr) in enumerate(after("corrupted")):
        assert len(cdr) == len(state(number))
        assert cdr != state(number)


def test_the_catalogue_covers_every_kind_on_every_stream():
    for topic in ("/chunk", "/joint_states", "/executor_node/plan", "/left_arm_controller/joint_trajectory"):
        assert {f"{topic} {kind}" for kind in KINDS if kind != "arbitrary"} <= FAULTS.keys()
    assert "/chunk arbitrary" in FAULTS
    assert {
        f"{node} {what}" for node in ("dit_node", "vlm_node", "executor_node") for what in ("killed", "frozen")
    } <= (FAULTS.keys())


@pytest.mark.parametrize("topic", ["/chunk", "/joint_states", "/context"])
def test_a_stream_freezes_at_its_last_fresh_message(topic: str):
    frozen, dropped = FAULTS[f"{topic} frozen"], FAULTS[f"{topic} dropped"]
    assert frozen.stops_within_s == dropped.stops_within_s
    # As much time to be judged in as where messages are dropped at once.
    assert frozen.lasts_s > dropped.lasts_s
    tamperer = Tamperer(JointState, "frozen", random.Random(0))
    assert frozen.since(tamperer) is None
    before_ns = time.time_ns()
    tamperer(state(0))
    first_ns = frozen.since(tamperer)
    assert before_ns <= first_ns <= time.time_ns()
    tamperer(state(1))
    assert frozen.since(tamperer) == first_ns
    assert dropped.since(tamperer) is None


def test_a_controller_that_takes_what_nobody_sent_is_judged_by_messages_only():
    left = "/left_arm_controller/joint_trajectory"
    misled = {name for name, fault in FAULTS.items() if fault.misleads}
    assert misled == {f"{left} corrupted", f"{left} huge"}
    assert all(FAULTS[name].misleads == left for name in misled)


def test_the_script_goes_on_from_a_prefix_without_a_step():
    policy = ScriptedPolicy()
    positions = dict.fromkeys(NAMES, 0.05)
    observation = Observation(10**9, positions)
    context = policy.encode(observation, "sway")
    free = policy.act(observation, context)
    np.testing.assert_allclose(free.actions[0], 0.05)
    prefix = ActionChunk(NAMES, 10**9, policy.step_ns, np.full((5, len(NAMES)), 0.05))
    chunk = policy.act(observation, context, prefix)
    np.testing.assert_array_equal(chunk.actions[:5], prefix.actions)
    assert np.abs(np.diff(chunk.actions, axis=0)).max() < 0.1
    assert chunk.committed == 5
