"""One inference of either system: whatever it breaks with is a reason that is told, and the next round tries again."""

from __future__ import annotations

from collections.abc import Callable

from dit_policy_ros.errors import DitPolicyError
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.runtime.fast_system import FastSystem
from dit_policy_ros.runtime.slow_system import SlowSystem


def attempt(node: ManagedNode, system: FastSystem | SlowSystem, what: str, infer: Callable[[], str]) -> bool:
    """Runs an inference from beginning to result, and tells the problem ``what``; returns whether there is none.

    Args:
        infer: returns '' or why there was nothing to do.
    """
    try:
        reason = infer()
    except DitPolicyError as problem:
        reason = str(problem)
        if system.state.running:
            system.fail()
    node.problems.tell(what, reason)
    return not reason
