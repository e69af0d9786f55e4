"""Both systems in one process: two threads, one policy, and contexts that are handed over instead of sent."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros.fast_part import FastPart
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.parameters import parameter
from dit_policy_ros.ros.policies import joined, load_policy_with_threads
from dit_policy_ros.ros.process import run_node
from dit_policy_ros.ros.slow_part import SlowPart
from dit_policy_ros.runtime.schedule import ScheduleConfig
from dit_policy_ros.types import Policy


@dataclass(frozen=True)
class PolicyOptions:
    """Parameters of ``policy_node``: those of ``vlm_node`` and ``dit_node``."""

    robot: str = parameter("aloha", "Robot description: a name in config/robots, or a path to a YAML file.")
    policy: str = parameter("", "Policy directory: a name in models/, or a path.")
    torch_threads: int = parameter(1, "Threads of the numerics; read at the first configure", "", 1, 64)
    encode_period_s: float = parameter(0.0, "Least time between two encodes; 0: as fast as possible", "s", 0.0, 60.0)
    continuity: str = parameter("", "How chunks are joined, see docs/asynchrony.md; empty: as the policy's file says.")
    execution_horizon_s: float = parameter(
        0.0, "Time from one planned observation to the next; 0: two thirds of a chunk", "s", 0.0, 10.0
    )
    commit_max_steps: int = parameter(24, "Longest committed prefix; 0 plans without one", "steps", 0, 1000)


class PolicyNode(ManagedNode):
    """The parts of ``vlm_node`` and ``dit_node``, each in a thread of its own."""

    OPTIONS = PolicyOptions

    def __init__(
        self, name: str = "policy_node", load: Callable[[str, int], Policy] = load_policy_with_threads, **kwargs
    ) -> None:
        """Makes the node.

        Args:
            load: path and number of threads to a policy.
        """
        super().__init__(name, **kwargs)
        self._load = load

    def configure(self) -> None:
        """Loads robot and policy, once for both."""
        options = self.options
        robot = load_robot(options.robot)
        policy = joined(self._load(options.policy, options.torch_threads), options.continuity)
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
