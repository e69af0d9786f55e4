"""The fast system as a node: cameras, joint states and the newest context in, action chunks out."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.actions.splice import committed_prefix
from dit_policy_ros.errors import DitPolicyError, RobotError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.chunks import chunk_to_message, message_to_chunk
from dit_policy_ros.ros.conversions.contexts import message_to_context
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.observer import Observer
from dit_policy_ros.ros.parameters import parameter
from dit_policy_ros.ros.policies import load_policy_with_threads
from dit_policy_ros.ros.process import run_node
from dit_policy_ros.runtime.latency import LatencyWindow
from dit_policy_ros.runtime.mailbox import Mailbox
from dit_policy_ros.runtime.schedule import LoopState, ScheduleConfig, chunk_due, commit_steps, ended, started
from dit_policy_ros.types import ActionChunk, Context, Policy, seconds

IDLE_S = 0.02
NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class DitOptions:
    """Parameters of ``dit_node``."""

    robot: str = parameter("aloha", "Robot description: a name in config/robots, or a path to a YAML file.")
    policy: str = parameter("", "Policy directory: a name in models/, or a path.")
    torch_threads: int = parameter(1, "Threads of the numerics; read at the first configure", "", 1, 64)
    execution_horizon_s: float = parameter(0.2, "Time from one planned observation to the next", "s", 0.0, 10.0)
    commit_max_steps: int = parameter(24, "Longest committed prefix; 0 plans without one", "steps", 0, 1000)


class DitNode(ManagedNode):
    """Plans at its horizon from the newest observation, beginning with what will be executed meanwhile."""

    OPTIONS = DitOptions

    def __init__(
        self, name: str = "dit_node", load: Callable[[str, int], Policy] = load_policy_with_threads, **kwargs
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
        self._robot = load_robot(options.robot)
        self._policy = self._load(options.policy, options.torch_threads)
        self._schedule = ScheduleConfig(
            execution_horizon_s=options.execution_horizon_s, commit_max_steps=options.commit_max_steps
        )
        self._context_box: Mailbox[CompressedImage] = Mailbox()
        self._plan_box: Mailbox[JointTrajectory] = Mailbox()
        self._observer = Observer(self, self._robot, self._policy.fast_cameras)
        self._chunks = self.publish_on(JointTrajectory, "chunk", qos.COMMAND)
        self.listen_to(CompressedImage, "context", self._context_box.put, qos.COMMAND)
        self.listen_to(JointTrajectory, "plan", self._plan_box.put, qos.COMMAND)

    def activate(self) -> None:
        """Starts planning."""
        self._observer.clear()
        self._context_box.take()
        self._plan_box.take()
        self._newest_context: Context | None = None
        self._plan: ActionChunk | None = None
        self._epoch = 0
        self._loop = LoopState()
        self._delay = LatencyWindow()
        self._acting = LatencyWindow()
        self._planned = 0
        self.start_worker("act", self._work)

    def measure(self) -> dict[str, object]:
        """Returns what was planned, how long it takes, and how old the context is."""
        measured: dict[str, object] = {"chunks": self._planned, "epoch": self._epoch}
        for name, value in (
            ("act p50_ms", self._acting.p50_ns),
            ("act p95_ms", self._acting.p95_ns),
            ("observation to chunk p95_ms", self._delay.p95_ns),
        ):
            if value is not None:
                measured[name] = value / NS_PER_MS
        if self._newest_context is not None:
            measured["context age_s"] = seconds(self._newest_context.age_ns(self.now_ns()))
        return measured

    def _work(self) -> None:
        self._take_context()
        self._take_plan()
        self.problems.tell(
            "context", "" if self._newest_context else "none received yet in this epoch; is vlm_node active?"
        )
        now_ns = self.now_ns()
        stamp_ns = self._observer.stamp_ns()
        if not chunk_due(self._loop, self._schedule, now_ns, stamp_ns, self._newest_context, self._epoch):
            self._observer.wait(IDLE_S)
            return
        try:
            reason = self._act(now_ns)
        except DitPolicyError as problem:
            reason = str(problem)
        self._loop = ended(self._loop)
        self.problems.tell("act", reason)
        if reason:
            self._observer.wait(IDLE_S)

    def _take_context(self) -> None:
        """A context of a newer epoch replaces the present one even while it has no tensors yet."""
        message = self._context_box.take()
        if message is None:
            return
        try:
            context = message_to_context(message)
        except RobotError as problem:
            self.problems.tell("context message", str(problem))
            return
        self.problems.tell("context message", "")
        if context.epoch >= self._epoch:
            self._epoch = context.epoch
            self._newest_context = context if context.tensors else None

    def _take_plan(self) -> None:
        message = self._plan_box.take()
        if message is None:
            return
        try:
            self._plan = message_to_chunk(message) if message.points else None
        except RobotError as problem:
            self._plan = None
            self.problems.tell("plan", str(problem))
            return
        self.problems.tell("plan", "")

    def _act(self, now_ns: int) -> str:
        assembly = self._observer.observe(now_ns)
        observation = assembly.observation
        if observation is None:
            return assembly.reason
        self._loop = started(self._loop, now_ns, observation.stamp_ns, self._epoch)
        begin_ns = time.monotonic_ns()
        chunk = self._policy.act(observation, self._newest_context, self._committed(observation.stamp_ns))
        self._acting.add(time.monotonic_ns() - begin_ns)
        self._chunks.publish(
            chunk_to_message(
                dataclasses.replace(
                    chunk,
                    observation_ns=observation.stamp_ns,
                    context_ns=self._newest_context.stamp_ns,
                    epoch=self._newest_context.epoch,
                )
            )
        )
        self._delay.add(self.now_ns() - observation.stamp_ns)
        self._planned += 1
        return ""

    def _committed(self, observation_ns: int) -> ActionChunk | None:
        """Returns what the executor is going to do from the observation on, until the new chunk can take effect."""
        step_ns = self._policy.step_ns
        multiple = getattr(self._policy, "commit_multiple", 1)
        count = commit_steps(self._delay.p95_ns, step_ns, multiple, self._schedule)
        return committed_prefix(self._plan, observation_ns, step_ns, count)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the node as a process."""
    return run_node(DitNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
