"""The two systems, the executor and a body in one loop under the body's own clock, with given delays.

Episodes in a simulator and replays of recordings run in it. It advances in control periods of the body, and nothing
in it reads a wall clock, so that a run is the same on every machine. A policy is called when its inference starts; its
result is handed over at the instant that the delays say.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, Protocol, TypeVar

from dit_policy_ros.actions.smoothness import arms_of, seam_of
from dit_policy_ros.actions.splice import committed_prefix, with_pending
from dit_policy_ros.actions.timing import timing_of
from dit_policy_ros.errors import DitPolicyError
from dit_policy_ros.evaluate.delays import ACTION, CONTEXT, Trace, delays_ns
from dit_policy_ros.evaluate.loop_log import LoopLog
from dit_policy_ros.evaluate.smoothness import Smoothness, smoothness_of
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.runtime import schedule
from dit_policy_ros.runtime.context_watch import ContextWatch
from dit_policy_ros.runtime.executor import Executor
from dit_policy_ros.runtime.executor_config import ExecutorConfig
from dit_policy_ros.runtime.fast_system import ActJob, FastSystem
from dit_policy_ros.runtime.incidents import count_stale
from dit_policy_ros.runtime.inference import checked
from dit_policy_ros.runtime.schedule import ScheduleConfig
from dit_policy_ros.runtime.slow_system import EncodeJob, SlowSystem
from dit_policy_ros.runtime.synchroniser import Synchroniser, history_of
from dit_policy_ros.types import ActionChunk, Body, Context, Policy, nanoseconds, seconds

Job = TypeVar("Job", EncodeJob, ActJob)


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
    delays: str = "constant"
    """How the two delays vary, a name in ``delays.PATTERNS``."""
    delay_trace: Trace | None = None
    """Recorded delays, instead of a pattern."""
    delay_seed: int = 0
    image_period_s: float = 0.08
    """Between two images of a camera, [s]."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)


@dataclass(frozen=True)
class _Flight(Generic[Job]):
    """An inference whose result has not arrived yet."""

    arrival_ns: int
    job: Job
    result: Context | ActionChunk | None
    """None: the policy failed."""


class TwoSystemLoop:
    """The two systems, the executor and the body of one episode."""

    def __init__(self, body: SteppedBody, policy: Policy, spec: RobotSpec, config: LoopConfig):
        self.config = config
        self.body, self.policy = body, policy
        self.start_ns = body.now_ns()
        self._arms = arms_of(spec)
        self.synchroniser = Synchroniser(spec, history=history_of(policy))
        self.executor = Executor(spec, config.executor)
        self.executor.activate(self.start_ns)
        self.epoch = 1
        self.instruction = body.instruction
        timing = timing_of(policy)
        self.slow = SlowSystem(config.schedule, timing)
        self.fast = FastSystem(policy, config.schedule, timing)
        self.slow.instruct(self.instruction, self.epoch)
        self.fast.begin_epoch(self.epoch)
        self.encoding: _Flight[EncodeJob] | None = None
        self.acting: _Flight[ActJob] | None = None
        self.log = LoopLog(len(spec.names))
        self._image_period_ns = nanoseconds(config.image_period_s)
        self._last_ns = self.start_ns
        self._context_delays, self._action_delays = (
            delays_ns(system, config.delays, mean_s, config.delay_seed, config.delay_trace)
            for system, mean_s in ((CONTEXT, config.context_delay_s), (ACTION, config.action_delay_s))
        )
        self.contexts = ContextWatch(config.executor.max_context_age_s)
        self._accepted: tuple[ActionChunk | None, ActionChunk] | None = None
        """The running plan and the chunk that is to replace it at the next tick."""

    @property
    def context(self) -> Context | None:
        """The context that the next chunk is made with."""
        return self.fast.context

    def step(self) -> None:
        """One control period: sense, let the two systems work, command, move."""
        now_ns = self.body.now_ns()
        if now_ns < self._last_ns:
            self._set_back(now_ns)
        self._last_ns = now_ns
        self._hear()
        self._sense(now_ns)
        self._deliver(now_ns)
        self._encode(now_ns)
        self._deliver(now_ns)
        self._act(now_ns)
        self._deliver(now_ns)
        for trajectory in self.executor.tick(now_ns, now_ns):
            self.body.command(trajectory)
        self._note(now_ns)
        self.body.step()

    def _set_back(self, now_ns: int) -> None:
        """Inferences take no longer because the clock was set back."""
        for name in ("encoding", "acting"):
            flight = getattr(self, name)
            if flight is not None:
                left_ns = max(0, flight.arrival_ns - self._last_ns)
                setattr(self, name, replace(flight, arrival_ns=now_ns + left_ns))

    def _hear(self) -> None:
        """Another instruction begins a new epoch; results of the old one are dropped."""
        if self.body.instruction != self.instruction:
            self.instruction = self.body.instruction
            self.epoch += 1
            self.slow.instruct(self.instruction, self.epoch)
            self.fast.begin_epoch(self.epoch)

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
        act_ns = max(act_ns, schedule.next_chunk_ns(self.fast.state, self.fast.config))
        if self.context is None and self.encoding:
            act_ns = max(act_ns, self.encoding.arrival_ns)
        if self.encoding and self.encoding.result is not None and self.fast.tells_news(self.encoding.result):
            act_ns = min(act_ns, self.encoding.arrival_ns)
        if self.fast.news:
            act_ns = now_ns
        looks_back = self.synchroniser.history.frames > 1
        slow = self.policy.slow_cameras if looks_back or encode_ns < next_images_ns else ()
        fast = self.policy.fast_cameras if act_ns < next_images_ns else ()
        return tuple(dict.fromkeys((*fast, *slow)))

    def _encode(self, now_ns: int) -> None:
        cameras = self.policy.slow_cameras
        if not self.slow.due(now_ns, self.synchroniser.stamp_ns(cameras), self.executor.plan):
            return
        observation = self._observation(cameras, now_ns)
        if observation is None:
            return
        job = self.slow.begin(now_ns, observation)
        encode = partial(self.policy.encode, observation, self.instruction, self.epoch)
        context = self._infer(encode, "encode", self.log.encodes)
        arrival_ns = max(now_ns, observation.stamp_ns + next(self._context_delays))
        self.encoding = _Flight(arrival_ns, job, context)
        self.log.encodes += 1

    def _act(self, now_ns: int) -> None:
        cameras = self.policy.fast_cameras
        if not self.fast.due(now_ns, self.synchroniser.stamp_ns(cameras), self.executor.plan):
            return
        observation = self._observation(cameras, now_ns)
        if observation is None:
            return
        job = self.fast.begin(now_ns, observation, self.committed)
        act = partial(self.policy.act, observation, job.context, job.committed)
        chunk = self._infer(act, "act", self.log.chunks)
        if chunk is not None:
            self.took(chunk)
        arrival_ns = max(now_ns, observation.stamp_ns + next(self._action_delays))
        self.acting = _Flight(arrival_ns, job, chunk)
        self.log.chunks += 1

    def _infer(self, infer, what: str, before: int):
        """Returns a result, or None where the policy failed though it was able to work before."""
        try:
            return checked(infer, what)
        except DitPolicyError as problem:
            if not before:
                raise
            self.log.failures.append(str(problem))
            return None

    def committed(self, start_ns: int, step_ns: int, count: int) -> ActionChunk | None:
        """Returns what will be executed from an instant on, whatever the policy says now."""
        plan = self.executor.plan
        if self._accepted is not None:
            plan = with_pending(plan, self._accepted[1], self.body.now_ns())
        return committed_prefix(plan, start_ns, step_ns, count)

    def took(self, chunk: ActionChunk) -> None:
        """Is told of every chunk when its inference starts; for those who watch."""

    def _deliver(self, now_ns: int) -> None:
        if self.encoding and self.encoding.arrival_ns <= now_ns:
            flight, self.encoding = self.encoding, None
            if flight.result is None:
                self.slow.fail()
            else:
                context = self.slow.finish(flight.job, flight.result, now_ns)
                if context is not None:
                    self.fast.take(context)
        if self.acting and self.acting.arrival_ns <= now_ns:
            flight, self.acting = self.acting, None
            if flight.result is None:
                self.fast.fail()
                return
            chunk = self.fast.finish(flight.job, flight.result, now_ns)
            if chunk is None:
                return
            self.contexts.offered(chunk, now_ns)
            plan = self.executor.plan
            if not self.executor.accept(chunk, now_ns):
                self._accepted = (plan, chunk)

    def incidents(self) -> dict[str, int]:
        """Returns what went wrong in the two loops so far, by name."""
        return {name: count for name, count in sorted((self.slow.incidents + self.fast.incidents).items()) if count}

    def smoothness(self) -> Smoothness:
        """Returns the smoothness of the run so far."""
        log, times_ns = self.log, self.log.times_ns.array()
        step_s = seconds(int(times_ns[1] - times_ns[0])) if len(times_ns) > 1 else 0.02
        return smoothness_of(log.seams, log.commanded.array(), step_s, log.planned.array(), log.chunk_ages_s.array())

    def _note(self, now_ns: int) -> None:
        splices = self.executor.drain_splices()
        if splices and self._accepted:
            self.log.seams.append(seam_of(*self._accepted, now_ns, self._arms))
        self._accepted = None
        self.log.splices.extend(splices)
        changes = self.executor.drain_changes()
        for change in changes:
            self.contexts.changed(change.after.value, change.reason, change.stamp_ns)
        self.log.changes.extend(changes)
        self.log.note(self.executor, self.synchroniser, now_ns)

    def _observation(self, cameras: tuple[str, ...], now_ns: int):
        assembly = self.synchroniser.assemble(cameras, now_ns)
        if assembly.observation is None:
            kind = assembly.reason.partition(":")[0]
            self.log.starved[kind] = self.log.starved.get(kind, 0) + 1
            count_stale(self.fast.incidents, assembly.reason)
        return assembly.observation
