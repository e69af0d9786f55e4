"""The fast system as a node: cameras, joint states and the newest context in, action chunks out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros.fast_part import FastPart
from dit_policy_ros.ros.parameters import parameter
from dit_policy_ros.ros.policies import joined
from dit_policy_ros.ros.policy_user import PolicyUser, PolicyUserOptions
from dit_policy_ros.ros.process import run_node
from dit_policy_ros.runtime.schedule import ScheduleConfig


@dataclass(frozen=True)
class DitOptions(PolicyUserOptions):
    """Parameters of ``dit_node``."""

    continuity: str = parameter("", "How chunks are joined, see docs/asynchrony.md; empty: as the policy's file says.")
    execution_horizon_s: float = parameter(
        0.0,
        "Time from one planned observation to the next; 0: as the policy says, or two thirds of a chunk",
        "s",
        0.0,
        10.0,
    )
    commit_max_steps: int = parameter(24, "Longest committed prefix; 0 plans without one", "steps", 0, 1000)


class DitNode(PolicyUser):
    """Plans at its horizon from the newest observation, beginning with what will be executed meanwhile."""

    NAME = "dit_node"
    OPTIONS = DitOptions

    def configure(self) -> None:
        """Loads robot and policy."""
        options = self.options
        policy = joined(self.load(), options.continuity)
        config = ScheduleConfig(
            execution_horizon_s=options.execution_horizon_s, commit_max_steps=options.commit_max_steps
        )
        self.fast = FastPart(self, load_robot(options.robot), policy, config)

    def activate(self) -> None:
        """Starts planning."""
        self.fast.begin()
        self.start_worker("act", self.fast.work)

    def measure(self) -> dict[str, object]:
        """Returns what was planned, how long it takes, and how old the context is."""
        return self.fast.measure()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the node as a process."""
    return run_node(DitNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
