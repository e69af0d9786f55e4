"""What the nodes that run a policy have in common: which one, for which robot, on how many threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.parameters import parameter
from dit_policy_ros.ros.policies import load_policy_in_process
from dit_policy_ros.types import Policy


@dataclass(frozen=True)
class PolicyUserOptions:
    """Parameters of every such node."""

    robot: str = parameter("aloha", "Robot description: a name in config/robots, or a path to a YAML file.")
    policy: str = parameter("", "Policy directory: a name in models/, or a path.")
    torch_threads: int = parameter(1, "Threads of the numerics; read at the first configure", "", 1, 64)
    device: str = parameter("cpu", "Where the networks run: cpu, cuda, or a numbered one such as cuda:1.")


class PolicyUser(ManagedNode):
    """A node that loads a policy when it is configured."""

    NAME: str
    """Of the node, unless another is given."""

    def __init__(self, name: str = "", load: Callable[[str, int, str], Policy] = load_policy_in_process, **kwargs):
        """Makes the node.

        Args:
            load: path, number of threads and device to a policy.
        """
        super().__init__(name or self.NAME, **kwargs)
        self._load_from = load

    def load(self) -> Policy:
        """Loads the policy that the parameters name."""
        options: PolicyUserOptions = self.options
        return self._load_from(options.policy, options.torch_threads, options.device)
