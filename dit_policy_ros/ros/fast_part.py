"""System 1 inside a node: cameras, joint states and the newest context in, action chunks out."""

from __future__ import annotations

from functools import partial

from sensor_msgs.msg import CompressedImage
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.actions.smoothness import arms_of, seam_of
from dit_policy_ros.actions.splice import committed_prefix
from dit_policy_ros.actions.timing import timing_of
from dit_policy_ros.errors import RobotError
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.attempt import attempt
from dit_policy_ros.ros.conversions.chunks import chunk_to_message, message_to_chunk
from dit_policy_ros.ros.conversions.contexts import message_to_context, sent_ns_of
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.observer import Observer
from dit_policy_ros.runtime.fast_system import FastSystem
from dit_policy_ros.runtime.incidents import count_stale
from dit_policy_ros.runtime.inference import checked
from dit_policy_ros.runtime.latency import LatencyWindow
from dit_policy_ros.runtime.mailbox import Mailbox
from dit_policy_ros.runtime.schedule import ScheduleConfig
from dit_policy_ros.runtime.seam_window import SeamWindow
from dit_policy_ros.runtime.stages import Stages
from dit_policy_ros.types import ActionChunk, Context, Policy, seconds

IDLE_S = 0.02
NS_PER_MS = 1_000_000


class FastPart:
    """Plans at its horizon from the newest observation, beginning with what will be executed meanwhile."""

    def __init__(
        self, node: ManagedNode, robot: RobotSpec, policy: Policy, config: ScheduleConfig, hears_contexts: bool = True
    ) -> None:
        """Subscribes and makes the publisher.

        Args:
            hears_contexts: subscribe to them; False where System 2 hands them over in this process.
        """
        self._node, self._policy, self._config, self._names = node, policy, config, robot.names
        self.stages = Stages()
        self.contexts: Mailbox[Context] = Mailbox()
        """Contexts of this process."""
        self._context_box: Mailbox[tuple[CompressedImage, int]] = Mailbox()
        self._plan_box: Mailbox[JointTrajectory] = Mailbox()
        self._observer = Observer(node, robot, policy.fast_cameras, self.stages)
        self._arms = arms_of(robot)
        self._chunks = node.publish_on(JointTrajectory, "chunk", qos.COMMAND)
        if hears_contexts:
            node.listen_to(CompressedImage, "context", self._store_context, qos.COMMAND)
        node.listen_to(JointTrajectory, "plan", self._plan_box.put, qos.COMMAND)
        self.begin()

    def begin(self) -> None:
        """Forgets everything."""
        self._observer.clear()
        for box in (self.contexts, self._context_box, self._plan_box):
            box.take()
        self.system = FastSystem(self._policy, self._config, timing_of(self._policy))
        self._plan: ActionChunk | None = None
        self._transfer = LatencyWindow()
        self._seams = SeamWindow()
        self._planned = 0

    def measure(self) -> dict[str, object]:
        """Returns what was planned, how long it takes, how smoothly, and how old the context is."""
        system = self.system
        measured: dict[str, object] = {"chunks": self._planned, "epoch": system.epoch, **self.stages.measure()}
        for name, value in (
            ("observation to chunk p50_ms", system.delays.p50_ns),
            ("observation to chunk p95_ms", system.delays.p95_ns),
            ("context transfer p50_ms", self._transfer.p50_ns),
            ("context transfer p95_ms", self._transfer.p95_ns),
        ):
            if value is not None:
                measured[name] = value / NS_PER_MS
        context, newest_ns = system.context, system.state.observation_ns
        if context is not None:
            measured["context age_s"] = seconds(context.age_ns(self._node.now_ns()))
        if newest_ns is not None:
            measured["chunk age_s"] = seconds(self._node.now_ns() - newest_ns)
        measured |= self._seams.measure()
        measured |= self._observer.counts()
        measured |= {f"incident {name}": count for name, count in system.incidents.items() if count}
        return measured

    def work(self) -> None:
        """One round: waits at most ``IDLE_S``."""
        node, system = self._node, self.system
        self._take_context()
        self._take_plan()
        node.problems.tell("context", "" if system.context else "none received yet in this epoch; is vlm_node active?")
        now_ns = node.now_ns()
        if not system.due(now_ns, self._observer.stamp_ns(), self._plan):
            self._observer.wait(IDLE_S)
            return
        if not attempt(node, system, "act", lambda: self._act(now_ns)):
            self._observer.wait(IDLE_S)

    def _store_context(self, message: CompressedImage) -> None:
        self._context_box.put((message, self._node.now_ns()))

    def _take_context(self) -> None:
        """A context of a newer epoch replaces the present one even while it has no tensors yet."""
        handed = self.contexts.take()
        if handed is not None:
            self.system.hear(handed)
        received = self._context_box.take()
        if received is None:
            return
        message, received_ns = received
        try:
            context = message_to_context(message)
        except RobotError as problem:
            self._node.problems.tell("context message", str(problem))
            return
        self._node.problems.tell("context message", "")
        sent_ns = sent_ns_of(message)
        if sent_ns:
            self._transfer.add(received_ns - sent_ns)
        self.system.hear(context)

    def _take_plan(self) -> None:
        message = self._plan_box.take()
        if message is None:
            return
        try:
            self._plan = self._checked(message_to_chunk(message)) if message.points else None
        except RobotError as problem:
            self._plan = None
            self._node.problems.tell("plan", str(problem))
            return
        self._node.problems.tell("plan", "")

    def _checked(self, plan: ActionChunk) -> ActionChunk:
        """Raises RobotError for a plan of another robot: no policy can go on from it."""
        if set(plan.names) != set(self._names):
            raise RobotError(f"A plan of {', '.join(plan.names)}; the robot's joints are {', '.join(self._names)}.")
        return plan

    def _act(self, now_ns: int) -> str:
        assembly = self._observer.observe(now_ns)
        if assembly.observation is None:
            count_stale(self.system.incidents, assembly.reason)
            return assembly.reason
        # What the executor is going to do from the observation on, until the new chunk can take effect.
        commit = partial(committed_prefix, self.system.expected(self._plan, now_ns))
        job = self.system.begin(now_ns, assembly.observation, commit)
        with self.stages.time("act"):
            chunk = checked(lambda: self._policy.act(job.observation, job.context, job.committed), "act")
        self._take_context()
        arrival_ns = self._node.now_ns()
        chunk = self.system.finish(job, chunk, arrival_ns)
        if chunk is None:
            return ""
        with self.stages.time("publish"):
            self._chunks.publish(chunk_to_message(chunk))
        self._take_plan()
        self._seams.add(seam_of(self._plan, chunk, arrival_ns, self._arms))
        self._planned += 1
        return ""
