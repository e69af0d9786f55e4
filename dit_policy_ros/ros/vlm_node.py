"""The slow system as a node: cameras and an instruction in, contexts out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros.parameters import parameter
from dit_policy_ros.ros.policy_user import PolicyUser, PolicyUserOptions
from dit_policy_ros.ros.process import run_node
from dit_policy_ros.ros.slow_part import SlowPart
from dit_policy_ros.runtime.schedule import ScheduleConfig


@dataclass(frozen=True)
class VlmOptions(PolicyUserOptions):
    """Parameters of ``vlm_node``."""

    encode_period_s: float = parameter(0.0, "Least time between two encodes; 0: as fast as possible", "s", 0.0, 60.0)


class VlmNode(PolicyUser):
    """Encodes the newest observation whenever the last encode has ended."""

    NAME = "vlm_node"
    OPTIONS = VlmOptions

    def configure(self) -> None:
        """Loads robot and policy."""
        options = self.options
        config = ScheduleConfig(encode_period_s=options.encode_period_s)
        self.slow = SlowPart(self, load_robot(options.robot), self.load(), config)

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
