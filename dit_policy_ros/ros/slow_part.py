"""System 2 inside a node: cameras and an instruction in, contexts out."""

from __future__ import annotations

import array
from collections.abc import Callable

from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.attempt import attempt
from dit_policy_ros.ros.conversions.contexts import context_to_message
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.observer import Observer
from dit_policy_ros.runtime.inference import checked
from dit_policy_ros.runtime.latency import LatencyWindow
from dit_policy_ros.runtime.mailbox import Mailbox
from dit_policy_ros.runtime.schedule import ScheduleConfig
from dit_policy_ros.runtime.slow_system import SlowSystem
from dit_policy_ros.runtime.stages import Stages
from dit_policy_ros.runtime.synchroniser import history_of
from dit_policy_ros.types import Context, Policy

IDLE_S = 0.1
NS_PER_MS = 1_000_000


class SlowPart:
    """Encodes the newest observation whenever the last encode has ended. One worker calls ``work``."""

    def __init__(
        self,
        node: ManagedNode,
        robot: RobotSpec,
        policy: Policy,
        config: ScheduleConfig,
        hand_over: Callable[[Context], None] | None = None,
    ) -> None:
        """Subscribes and makes the publisher.

        Args:
            hand_over: takes every context in this process, without a copy; None where nobody waits for them here.
        """
        self._node, self._robot, self._policy, self._config = node, robot, policy, config
        self._hand_over = hand_over
        self.stages = Stages()
        self._instructions: Mailbox[str] = Mailbox()
        self._instruction: str | None = None
        self._epoch = 0
        self._observer = Observer(node, robot, policy.slow_cameras, self.stages, history_of(policy))
        self._contexts = node.publish_on(CompressedImage, "context", qos.COMMAND)
        node.listen_to(String, robot.instruction_topic, self._store_instruction, qos.LATCHED)
        self.begin()

    def begin(self) -> None:
        """Forgets what was seen; the instruction and its epoch stay."""
        self._observer.clear()
        self.system = SlowSystem(self._config)
        if self._instruction is not None:
            self.system.instruct(self._instruction, self._epoch)
        self._latency = LatencyWindow()
        self._encoded = 0
        self._bytes = 0

    def measure(self) -> dict[str, object]:
        """Returns what was encoded and how long it takes."""
        measured: dict[str, object] = {"contexts": self._encoded, "epoch": self._epoch, **self.stages.measure()}
        if self._bytes:
            measured["context size_kB"] = self._bytes / 1e3
        delay_ns = self.system.delays.p95_ns
        if delay_ns is not None:
            measured["observation to context p95_ms"] = delay_ns / NS_PER_MS
        measured |= self._observer.counts()
        measured |= {f"incident {name}": count for name, count in self.system.incidents.items() if count}
        return measured

    def work(self) -> None:
        """One round: waits at most ``IDLE_S``."""
        node, system = self._node, self.system
        self._begin_epoch()
        if self._instruction is None:
            node.problems.tell("instruction", f"none received on {self._robot.instruction_topic} yet")
            self._observer.wait(IDLE_S)
            return
        node.problems.tell("instruction", "")
        now_ns = node.now_ns()
        if not system.due(now_ns, self._observer.stamp_ns()):
            self._observer.wait(IDLE_S)
            return
        if not attempt(node, system, "encode", lambda: self._encode(now_ns)):
            self._observer.wait(IDLE_S)

    def _store_instruction(self, message: String) -> None:
        self._instructions.put(message.data)

    def _begin_epoch(self) -> None:
        """A new instruction, or the same once more as after a reset, makes the contexts so far worthless."""
        instruction = self._instructions.take()
        if instruction is None:
            return
        self._instruction = instruction
        # Counting from the clock, a node that was restarted does not fall behind its former self.
        self._epoch = max(self._epoch + 1, self._node.now_ns() // NS_PER_MS)
        self.system.instruct(instruction, self._epoch)
        self._node.get_logger().info(f"Epoch {self._epoch}: '{instruction}'.")
        # A context without tensors announces the epoch at once, so that nobody acts on the old one meanwhile.
        self._send(Context(self._node.now_ns(), instruction, self._epoch, {}))

    def _encode(self, now_ns: int) -> str:
        assembly = self._observer.observe(now_ns)
        if assembly.observation is None:
            return assembly.reason
        job = self.system.begin(now_ns, assembly.observation)
        with self.stages.time("encode"):
            context = checked(lambda: self._policy.encode(job.observation, job.instruction, job.epoch), "encode")
        self._begin_epoch()
        context = self.system.finish(job, context, self._node.now_ns())
        if context is not None:
            self._send(context)
            self._encoded += 1
        return ""

    def _send(self, context: Context) -> None:
        if self._hand_over is not None:
            self._hand_over(context)
            if not self._contexts.get_subscription_count():
                return
        with self.stages.time("publish"):
            message = context_to_message(context, self._node.now_ns())
            self._bytes = max(self._bytes, _size(message.data))
            self._contexts.publish(message)


def _size(data: array.array) -> int:
    return len(data) * data.itemsize
