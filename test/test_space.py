"""The unified action space against the official table and mapping."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from dit_policy_ros.errors import RobotError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.space import SIZE, SLOTS, SlotMap, gather, slot_index

GOLDEN = Path(__file__).parent / "golden" / "rdt"


@pytest.fixture(scope="module")
def official():
    cases = json.loads((GOLDEN / "reference.json").read_text())["cases"]
    return next(case for case in cases if case["name"] == "unified_space")


def test_every_official_name_has_its_official_index(official):
    assert dict(SLOTS) == official["unified_vector"]["name_to_index"]
    assert official["unified_vector"]["length"] == SIZE


def test_aloha_fills_the_official_slots(official):
    robot = load_robot("aloha")
    assert robot.slots.indices.tolist() == official["aloha"]["indices_14_to_unified"]
    arrays = load_file(GOLDEN / "cases.safetensors")
    qpos = arrays["unified_space.qpos"]
    divisor = np.array(official["aloha"]["state_divisor"], dtype=np.float32)
    unified = robot.slots.to_unified(qpos / divisor)
    np.testing.assert_allclose(unified, arrays["unified_space.unified_state"], atol=1e-6)
    np.testing.assert_array_equal(robot.slots.mask, arrays["unified_space.unified_mask"][0].astype(bool))
    command = robot.slots.from_unified(arrays["unified_space.unified_action"])
    multiplier = np.array(official["aloha"]["action_multiplier"], dtype=np.float32)
    np.testing.assert_allclose(command * multiplier, arrays["unified_space.command"], atol=1e-5)


@given(
    st.lists(st.sampled_from(sorted(SLOTS)), min_size=1, max_size=20, unique_by=lambda name: SLOTS[name]),
    st.integers(0, 2**32 - 1),
)
def test_to_unified_and_back_is_lossless(slots, seed):
    mapping = SlotMap.from_slots({f"joint_{i}": slot for i, slot in enumerate(slots)})
    values = np.random.default_rng(seed).normal(size=(3, len(slots)))
    unified = mapping.to_unified(values)
    np.testing.assert_array_equal(mapping.from_unified(unified), values)
    assert (unified[:, ~mapping.mask] == 0).all()
    assert mapping.mask.sum() == len(slots)


@given(st.sampled_from(sorted(name for name in SLOTS if name.startswith("left_"))))
def test_left_and_right_are_symmetric(name):
    assert SLOTS[name] - SLOTS[name.replace("left_", "right_")] == 50


def test_wrong_and_doubled_slots_are_named():
    with pytest.raises(RobotError, match="left_arm_joint_99_pos"):
        slot_index("left_arm_joint_99_pos")
    with pytest.raises(RobotError, match="'a' and 'b' both fill slot 10"):
        SlotMap.from_slots({"a": "gripper_open", "b": "right_gripper_open"})


@given(st.permutations(["a", "b", "c"]))
def test_gather_goes_by_name_whatever_the_order(order):
    values = {"a": 1.0, "b": 2.0, "c": 3.0}
    np.testing.assert_array_equal(gather({name: values[name] for name in order}, ("c", "a")), [3.0, 1.0])


def test_gather_refuses_missing_and_infinite_values():
    with pytest.raises(RobotError, match="Missing joint b; got a"):
        gather({"a": 0.0}, ("a", "b"))
    with pytest.raises(RobotError, match="joint a is not finite"):
        gather({"a": float("inf")}, ("a",))
