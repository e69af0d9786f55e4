"""What a policy breaks with becomes a reason."""

from __future__ import annotations

import numpy as np
import pytest

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.runtime.inference import checked
from dit_policy_ros.types import ActionChunk, Context


def breaks(problem):
    raise problem


@pytest.mark.parametrize("problem", [RuntimeError("out of memory"), ZeroDivisionError("oops"), KeyError("left")])
def test_any_exception_is_a_reason_with_its_cause(problem):
    with pytest.raises(PolicyError, match=f"^encode broke with {type(problem).__name__}: ") as caught:
        checked(lambda: breaks(problem), "encode")
    assert caught.value.__cause__ is problem


def test_reasons_of_our_own_stay_what_they_are_and_an_order_to_stop_is_obeyed():
    with pytest.raises(CheckpointError, match=r"^weights$"):
        checked(lambda: breaks(CheckpointError("weights")), "act")
    with pytest.raises(KeyboardInterrupt):
        checked(lambda: breaks(KeyboardInterrupt()), "act")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_actions_that_are_no_numbers_are_named_by_joint(value):
    actions = np.zeros((5, 3))
    good = ActionChunk(("a", "b", "c"), 0, 1, actions)
    assert checked(lambda: good, "act") is good
    actions[2, 1] = value
    with pytest.raises(PolicyError, match=r"act gave actions that are not finite: b$"):
        checked(lambda: ActionChunk(("a", "b", "c"), 0, 1, actions), "act")


def test_a_context_is_the_business_of_its_policy():
    context = Context(0, "go", 1, {"x": np.full(2, np.nan)})
    assert checked(lambda: context, "encode") is context
