"""Both systems in one process: two threads, one policy, and contexts that are handed over instead of sent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros.dit_node import DitOptions
from dit_policy_ros.ros.fast_part import FastPart
from dit_policy_ros.ros.policies import joined
from dit_policy_ros.ros.policy_user import PolicyUser
from dit_policy_ros.ros.process import run_node
from dit_policy_ros.ros.slow_part import SlowPart
from dit_policy_ros.ros.vlm_node import VlmOptions
from dit_policy_ros.runtime.schedule import ScheduleConfig


@dataclass(frozen=True)
class PolicyOptions(DitOptions, VlmOptions):
    """Parameters of ``policy_node``: those of ``vlm_node`` and ``dit_node``."""


class PolicyNode(PolicyUser):
    """The parts of ``vlm_node`` and ``dit_node``, each in a thread of its own."""

    NAME = "policy_node"
    OPTIONS = PolicyOptions

    def configure(self) -> None:
        """Loads robot and policy, once for both."""
        options = self.options
        robot = load_robot(options.robot)
        policy = joined(self.load(), options.continuity)
        config = ScheduleConfig(
            execution_horizon_s=options.execution_horizon_s,
            encode_period_s=options.encode_period_s,
            commit_max_steps=options.commit_max_steps,
        )
        self.fast = FastPart(self, robot, policy, config, hears_contexts=False)
        self.slow = SlowPart(self, robot, policy, config, self.fast.contexts.put)

    def activate(self) -> None:
        """Starts both threads."""
        self.fast.begin()
        self.slow.begin()
        self.start_worker("act", self.fast.work)
        self.start_worker("encode", self.slow.work)

    def measure(self) -> dict[str, object]:
        """Returns the figures of both parts; those of the slow one begin with 'slow'."""
        return {**self.fast.measure(), **{f"slow {name}": value for name, value in self.slow.measure().items()}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the node as a process."""
    return run_node(PolicyNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
