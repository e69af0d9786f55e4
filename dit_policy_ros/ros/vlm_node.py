"""The slow system as a node: cameras and an instruction in, contexts out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.parameters import parameter
from dit_policy_ros.ros.policies import load_policy_with_threads
from dit_policy_ros.ros.process import run_node
from dit_policy_ros.ros.slow_part import SlowPart
from dit_policy_ros.runtime.schedule import ScheduleConfig
from dit_policy_ros.types import Policy


@dataclass(frozen=True)
class VlmOptions:
    """Parameters of ``vlm_node``."""

    robot: str = parameter("aloha", "Robot description: a name in config/robots, or a path to a YAML file.")
    policy: str = parameter("", "Policy directory: a name in models/, or a path.")
    torch_threads: int = parameter(1, "Threads of the numerics; read at the first configure", "", 1, 64)
    encode_period_s: float = parameter(0.0, "Least time between two encodes; 0: as fast as possible", "s", 0.0, 60.0)


class VlmNode(ManagedNode):
    """Encodes the newest observation whenever the last encode has ended."""

    OPTIONS = VlmOptions

    def __init__(
        self, name: str = "vlm_node", load: Callable[[str, int], Policy] = load_policy_with_threads, **kwargs
    ) -> None:
        """Makes the node.

        Args:
            load: path and number of threads to a policy.
        """
        super().__init__(name, **kwargs)
        self._load = load

    def configure(self) -> None:
        """Loads robot and policy."""
        options = self.options
        policy = self._load(options.policy, options.torch_threads)
        config = ScheduleConfig(encode_period_s=options.encode_period_s)
        self.slow = SlowPart(self, load_robot(options.robot), policy, config)

    def activate(self) -> None:
        """Starts encoding."""
        self.slow.begin()
        self.start_worker("encode", self.slow.work)

    def measure(self) -> dict[str, object]:
        """Returns what was encoded and how long it takes."""
        return self.slow.measure()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the node as a process."""
    return run_node(VlmNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
