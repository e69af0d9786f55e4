"""The two systems, the executor and a body in one loop under the body's own clock, with given delays.

Episodes in a simulator and replays of recordings run in it. It advances in control periods of the body, and nothing
in it reads a wall clock, so that a run is the same on every machine. A policy is called when its inference starts; its
result is handed over at the instant that the delays say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from dit_policy_ros.actions.splice import committed_prefix
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.runtime import schedule
from dit_policy_ros.runtime.executor import Executor, StateChange
from dit_policy_ros.runtime.executor_config import ExecutorConfig
from dit_policy_ros.runtime.latency import LatencyWindow
from dit_policy_ros.runtime.schedule import LoopState, ScheduleConfig
from dit_policy_ros.runtime.synchroniser import Synchroniser
from dit_policy_ros.types import ActionChunk, Body, Context, Policy, nanoseconds, seconds

T = TypeVar("T", Context, ActionChunk)


class SteppedBody(Body, Protocol):
    """A body with a clock of its own."""

    @property
    def instruction(self) -> str:
        """The sentence that holds now."""

    def step(self) -> None:
        """Runs one control period."""


@dataclass(frozen=True)
class LoopConfig:
    """Delays and settings of the two systems and the executor."""

    context_delay_s: float = 0.3
    """From an observation to the context made of it, [s]."""
    action_delay_s: float = 0.06
    """From an observation to the chunk made of it, [s]."""
    image_period_s: float = 0.08
    """Between two images of a camera, [s]."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)


@dataclass(frozen=True)
class _Flight(Generic[T]):
    """An inference whose result has not arrived yet."""

    arrival_ns: int
    result: T


class TwoSystemLoop:
    """The two systems, the executor and the body of one episode."""

    def __init__(self, body: SteppedBody, policy: Policy, spec: RobotSpec, config: LoopConfig):
        self.config = config
        self.body, self.policy = body, policy
        self.start_ns = body.now_ns()
        self.synchroniser = Synchroniser(spec)
        self.executor = Executor(spec, config.executor)
        self.executor.activate(self.start_ns)
        self.epoch = 1
        self.instruction = body.instruction
        self.slow, self.fast = LoopState(), LoopState()
        self.encoding: _Flight[Context] | None = None
        self.acting: _Flight[ActionChunk] | None = None
        self.context: Context | None = None
        self.delays = LatencyWindow()
        self.log = LoopLog()
        self._image_period_ns = nanoseconds(config.image_period_s)

    def step(self) -> None:
        """One control period: sense, let the two systems work, command, move."""
        now_ns = self.body.now_ns()
        self._hear()
        self._sense(now_ns)
        self._deliver(now_ns)
        self._encode(now_ns)
        self._deliver(now_ns)
        self._act(now_ns)
        self._deliver(now_ns)
        for trajectory in self.executor.tick(now_ns, now_ns):
            self.body.command(trajectory)
        self.log.note(self.executor, self.synchroniser, now_ns)
        self.body.step()

    def _hear(self) -> None:
        """Another instruction begins a new epoch; results of the old one are dropped."""
        if self.body.instruction != self.instruction:
            self.instruction = self.body.instruction
            self.epoch, self.context = self.epoch + 1, None

    def _sense(self, now_ns: int) -> None:
        images_are_due = (now_ns - self.start_ns) % self._image_period_ns == 0
        cameras = self._consumed_cameras(now_ns) if images_are_due else ()
        observation = self.body.observe(cameras)
        self.synchroniser.add_joints(now_ns, observation.positions)
        self.executor.feedback(now_ns, observation.positions)
        for camera, image in observation.images.items():
            self.synchroniser.add_image(camera, observation.image_stamps_ns.get(camera, now_ns), image)

    def _consumed_cameras(self, now_ns: int) -> tuple[str, ...]:
        """The cameras whose images of now will be used: rendering is what an episode costs most."""
        next_images_ns = now_ns + self._image_period_ns
        encode_ns = self.encoding.arrival_ns if self.encoding else now_ns
        act_ns = self.acting.arrival_ns if self.acting else now_ns
        act_ns = max(act_ns, schedule.next_chunk_ns(self.fast, self.config.schedule))
        if self.context is None and self.encoding:
            act_ns = max(act_ns, self.encoding.arrival_ns)
        slow = self.policy.slow_cameras if encode_ns < next_images_ns else ()
        fast = self.policy.fast_cameras if act_ns < next_images_ns else ()
        return tuple(dict.fromkeys((*fast, *slow)))

    def _encode(self, now_ns: int) -> None:
        cameras = self.policy.slow_cameras
        stamp_ns = self.synchroniser.stamp_ns(cameras)
        if not schedule.encode_due(self.slow, self.config.schedule, now_ns, stamp_ns, self.epoch):
            return
        observation = self._observation(cameras, now_ns)
        if observation is None:
            return
        context = self.policy.encode(observation, self.instruction, self.epoch)
        arrival_ns = max(now_ns, observation.stamp_ns + nanoseconds(self.config.context_delay_s))
        self.slow = schedule.started(self.slow, now_ns, observation.stamp_ns, self.epoch)
        self.encoding = _Flight(arrival_ns, context)
        self.log.encodes += 1

    def _act(self, now_ns: int) -> None:
        cameras = self.policy.fast_cameras
        stamp_ns = self.synchroniser.stamp_ns(cameras)
        if not schedule.chunk_due(self.fast, self.config.schedule, now_ns, stamp_ns, self.context, self.epoch):
            return
        observation = self._observation(cameras, now_ns)
        if observation is None:
            return
        step_ns, multiple = self.policy.step_ns, getattr(self.policy, "commit_multiple", 1)
        count = schedule.commit_steps(self.delays.p95_ns, step_ns, multiple, self.config.schedule)
        prefix = self.committed(observation.stamp_ns, step_ns, count)
        chunk = self.policy.act(observation, self.context, prefix)
        arrival_ns = max(now_ns, observation.stamp_ns + nanoseconds(self.config.action_delay_s))
        self.fast = schedule.started(self.fast, now_ns, observation.stamp_ns, self.epoch)
        self.took(chunk)
        self.acting = _Flight(arrival_ns, chunk)
        self.log.chunks += 1

    def committed(self, start_ns: int, step_ns: int, count: int) -> ActionChunk | None:
        """Returns what will be executed from an instant on, whatever the policy says now."""
        return committed_prefix(self.executor.plan, start_ns, step_ns, count)

    def took(self, chunk: ActionChunk) -> None:
        """Is told of every chunk when its inference starts; for those who watch."""

    def _deliver(self, now_ns: int) -> None:
        if self.encoding and self.encoding.arrival_ns <= now_ns:
            if self.encoding.result.epoch == self.epoch:
                self.context = self.encoding.result
            self.encoding, self.slow = None, schedule.ended(self.slow)
        if self.acting and self.acting.arrival_ns <= now_ns:
            self.delays.add(now_ns - self.fast.observation_ns)
            self.executor.accept(self.acting.result, now_ns)
            self.acting, self.fast = None, schedule.ended(self.fast)

    def _observation(self, cameras: tuple[str, ...], now_ns: int):
        assembly = self.synchroniser.assemble(cameras, now_ns)
        if assembly.observation is None:
            kind = assembly.reason.partition(":")[0]
            self.log.starved[kind] = self.log.starved.get(kind, 0) + 1
        return assembly.observation


class LoopLog:
    """What an episode leaves behind, period by period."""

    def __init__(self) -> None:
        self.times_ns: list[int] = []
        self.commanded: list[np.ndarray] = []
        self.measured: list[np.ndarray] = []
        self.context_ages_s: list[float] = []
        self.splices: list = []
        self.changes: list[StateChange] = []
        self.starved: dict[str, int] = {}
        self.encodes = 0
        self.chunks = 0

    def note(self, executor: Executor, synchroniser: Synchroniser, now_ns: int) -> None:
        """Notes one control period, before the body moves."""
        unknown = np.full(len(executor.names), np.nan)
        reference, age_ns = executor.reference(now_ns), executor.context_age_ns(now_ns)
        measured = synchroniser.joints.at(now_ns)
        self.times_ns.append(now_ns)
        self.commanded.append(unknown if reference is None else reference)
        self.measured.append(unknown if measured is None else measured)
        self.context_ages_s.append(float("nan") if age_ns is None else seconds(age_ns))
        self.splices.extend(executor.drain_splices())
        self.changes.extend(executor.drain_changes())
