"""The slow system as a node: cameras and an instruction in, contexts out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from dit_policy_ros.errors import DitPolicyError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.contexts import context_to_message
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.observer import Observer
from dit_policy_ros.ros.parameters import parameter
from dit_policy_ros.ros.policies import load_policy_with_threads
from dit_policy_ros.ros.process import run_node
from dit_policy_ros.runtime.latency import LatencyWindow
from dit_policy_ros.runtime.mailbox import Mailbox
from dit_policy_ros.runtime.schedule import LoopState, ScheduleConfig, encode_due, ended, started
from dit_policy_ros.types import Context, Policy

IDLE_S = 0.1
NS_PER_MS = 1_000_000


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
        self._robot = load_robot(self.options.robot)
        self._policy = self._load(self.options.policy, self.options.torch_threads)
        self._schedule = ScheduleConfig(encode_period_s=self.options.encode_period_s)
        self._instructions: Mailbox[str] = Mailbox()
        self._instruction: str | None = None
        self._epoch = 0
        self._observer = Observer(self, self._robot, self._policy.slow_cameras)
        self._contexts = self.publish_on(CompressedImage, "context", qos.COMMAND)
        self.listen_to(String, self._robot.instruction_topic, self._store_instruction, qos.LATCHED)

    def activate(self) -> None:
        """Starts encoding."""
        self._observer.clear()
        self._loop = LoopState()
        self._latency = LatencyWindow()
        self._encoded = 0
        self.start_worker("encode", self._work)

    def measure(self) -> dict[str, object]:
        """Returns what was encoded and how long it takes."""
        measured: dict[str, object] = {"contexts": self._encoded, "epoch": self._epoch}
        for name, value in (("p50", self._latency.p50_ns), ("p95", self._latency.p95_ns)):
            if value is not None:
                measured[f"encode {name}_ms"] = value / NS_PER_MS
        return measured

    def _store_instruction(self, message: String) -> None:
        self._instructions.put(message.data)

    def _work(self) -> None:
        self._begin_epoch()
        if self._instruction is None:
            self.problems.tell("instruction", f"none received on {self._robot.instruction_topic} yet")
            self._observer.wait(IDLE_S)
            return
        self.problems.tell("instruction", "")
        now_ns = self.now_ns()
        if not encode_due(self._loop, self._schedule, now_ns, self._observer.stamp_ns(), self._epoch):
            self._observer.wait(IDLE_S)
            return
        try:
            reason = self._encode(now_ns)
        except DitPolicyError as problem:
            reason = str(problem)
        self._loop = ended(self._loop)
        self.problems.tell("encode", reason)
        if reason:
            self._observer.wait(IDLE_S)

    def _begin_epoch(self) -> None:
        """A new instruction, or the same once more as after a reset, makes the contexts so far worthless."""
        instruction = self._instructions.take()
        if instruction is None:
            return
        self._instruction = instruction
        # Counting from the clock, a node that was restarted does not fall behind its former self.
        self._epoch = max(self._epoch + 1, self.now_ns() // NS_PER_MS)
        self.get_logger().info(f"Epoch {self._epoch}: '{instruction}'.")
        # A context without tensors announces the epoch at once, so that nobody acts on the old one meanwhile.
        self._contexts.publish(context_to_message(Context(self.now_ns(), instruction, self._epoch, {})))

    def _encode(self, now_ns: int) -> str:
        assembly = self._observer.observe(now_ns)
        if assembly.observation is None:
            return assembly.reason
        self._loop = started(self._loop, now_ns, assembly.observation.stamp_ns, self._epoch)
        begin_ns = time.monotonic_ns()
        context = self._policy.encode(assembly.observation, self._instruction, self._epoch)
        self._latency.add(time.monotonic_ns() - begin_ns)
        self._contexts.publish(context_to_message(context))
        self._encoded += 1
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the node as a process."""
    return run_node(VlmNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
