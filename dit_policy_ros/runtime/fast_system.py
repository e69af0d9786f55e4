"""The loop of System 1 without its thread: when to plan, from what, with which prefix, and which chunks still count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dit_policy_ros.actions.splice import with_pending
from dit_policy_ros.actions.timing import Timing, placed
from dit_policy_ros.runtime import incidents, schedule
from dit_policy_ros.runtime.event_log import EventLog
from dit_policy_ros.runtime.incidents import Incidents
from dit_policy_ros.runtime.latency import LatencyWindow
from dit_policy_ros.runtime.schedule import LoopState, ScheduleConfig
from dit_policy_ros.types import ActionChunk, Context, Observation, Policy, nanoseconds

PLAN_LATENCY_NS = 100_000_000
"""Within it the executor's plan shows a chunk that it took."""

Commit = Callable[[int, int, int], ActionChunk | None]
"""(start [ns], step [ns], count) to what will be executed from then on, or None where nothing is planned."""


@dataclass(frozen=True)
class ActJob:
    """One chunk in the making."""

    started_ns: int
    observation: Observation
    context: Context
    committed: ActionChunk | None


class FastSystem:
    """Told the time by its owner. Not thread-safe."""

    def __init__(self, policy: Policy, config: ScheduleConfig, timing: Timing | None = None) -> None:
        preferred_s = getattr(policy, "execution_horizon_s", 0.0)
        self.config = schedule.fitted(config, policy.horizon * policy.step_ns, preferred_s)
        self.timing = timing or Timing()
        self.state = LoopState()
        self.epoch = 0
        self.context: Context | None = None
        self.delays = LatencyWindow()
        """From an observation to the arrival of its chunk."""
        self.effective = LatencyWindow(warm_up_ns=0)
        """Those of chunks that came while they could still be executed; no prefix helps the others."""
        self.incidents: Incidents = Incidents()
        self.events = EventLog()
        self._step_ns, self._multiple = policy.step_ns, getattr(policy, "commit_multiple", 1)
        self._reach_ns = policy.horizon * policy.step_ns
        self._last_end_ns: int | None = None
        """End of the newest chunk of this epoch."""
        self._sent: tuple[ActionChunk, int] | None = None
        """The newest chunk, and when it was handed out."""
        self._is_news = getattr(policy, "is_news", None)
        self._planned_on: Context | None = None
        """The context of the newest chunk of this epoch."""
        self.news = False
        """Whether the context says something that the newest chunk does not know."""
        self._idle_ns: int | None = None
        """When it was last asked and had nothing to do."""
        self._seen_ns: int | None = None
        self._seen_plan: ActionChunk | None = None

    def hear(self, context: Context, is_news: bool | None = None) -> None:
        """Takes a context; one without tensors announces a new epoch, one of an old epoch is dropped.

        Args:
            is_news: whether to plan at once, instead of at the horizon; None asks the policy.
        """
        if is_news is None:
            is_news = bool(context.tensors) and self.tells_news(context)
        said = int(bool(context.tensors)) + int(is_news)
        self.events.add("heard", 0, 0, context.stamp_ns, context.epoch, said)
        if context.epoch < self.epoch:
            self.incidents[incidents.OLD_EPOCH] += 1
            return
        self.epoch = context.epoch
        self.context = None
        if context.tensors:
            self.take(context, is_news)

    def take(self, context: Context, is_news: bool | None = None) -> None:
        """Plans on a context of this epoch from now on; for ``is_news`` see ``hear``."""
        self.news = self.tells_news(context) if is_news is None else is_news
        self.context = context

    def begin_epoch(self, epoch: int) -> None:
        """Drops the context."""
        self.epoch, self.context, self._planned_on, self.news = epoch, None, None, False

    def due(self, now_ns: int, observation_ns: int | None, plan: ActionChunk | None) -> bool:
        """Whether a chunk should be begun now.

        Args:
            observation_ns: stamp of the newest observation; None where there is none.
            plan: what is being executed; read by methods that wait for rest.
        """
        self._note(now_ns, observation_ns, plan)
        jump_ns = nanoseconds(self.config.clock_jump_s)
        self.incidents[incidents.CLOCK_AHEAD] += self._idle_ns is not None and now_ns - self._idle_ns > jump_ns
        self._idle_ns = None if self.state.running else now_ns
        known = (self.context, self.epoch, self.news)
        if not schedule.chunk_due(self.state, self.config, now_ns, observation_ns, *known):
            return False
        if not self.timing.waits_for_rest or plan is None:
            return True
        rest_ns = max(plan.end_ns, self._last_end_ns or 0)
        return min(observation_ns, self.context.stamp_ns) >= rest_ns

    def begin(self, now_ns: int, observation: Observation, commit: Commit) -> ActJob:
        """Starts a chunk, committed to what will be executed until it can take effect."""
        self._note(now_ns, observation.stamp_ns, self._seen_plan)
        if schedule.jumped_back(self.state, self.config, observation.stamp_ns):
            self.incidents[incidents.CLOCK_JUMP] += 1
            self._last_end_ns = None
        count = 0
        if self.timing.commits:
            warm_up_ns = self.delays.warm_up_ns or 0
            likely_ns = schedule.likely_delay_ns(self.effective.p50_ns, self.effective.p95_ns, self.config)
            count = schedule.commit_steps(likely_ns, self._step_ns, self._multiple, self.config, warm_up_ns)
        committed = commit(observation.stamp_ns, self._step_ns, count)
        self.state, self._idle_ns = schedule.started(self.state, now_ns, observation.stamp_ns, self.epoch), None
        length = 0 if committed is None else len(committed.actions)
        self.events.add("act", now_ns, observation.stamp_ns, self.context.stamp_ns, self.epoch, length)
        self._planned_on, self.news = self.context, False
        return ActJob(now_ns, observation, self.context, committed)

    def finish(self, job: ActJob, chunk: ActionChunk, now_ns: int) -> ActionChunk | None:
        """Returns the chunk as it is to be executed, or None where it is of an old epoch."""
        self.state = schedule.ended(self.state)
        observation_ns = job.observation.stamp_ns
        delay_ns, is_warm_up = now_ns - observation_ns, self.delays.warm_up_ns is None
        self.delays.add(delay_ns)
        if delay_ns < self._reach_ns and not is_warm_up:
            self.effective.add(delay_ns)
        length = 0 if job.committed is None else len(job.committed.actions)
        self.events.add("chunk", now_ns, observation_ns, job.context.stamp_ns, job.context.epoch, length)
        if job.context.epoch != self.epoch:
            self.incidents[incidents.OLD_EPOCH] += 1
            return None
        self._judge(job, length, now_ns)
        chunk = replace(
            placed(chunk, self.timing, now_ns),
            observation_ns=observation_ns,
            context_ns=job.context.stamp_ns,
            epoch=job.context.epoch,
        )
        self._last_end_ns, self._sent = chunk.end_ns, (chunk, now_ns)
        return chunk

    def expected(self, plan: ActionChunk | None, now_ns: int) -> ActionChunk | None:
        """Returns what will be executed: the executor's plan, with the last chunk where the plan does not show it yet.

        A plan that does not show it after ``PLAN_LATENCY_NS`` never will: the executor refused the chunk.
        """
        if self._sent is None:
            return plan
        chunk, sent_ns = self._sent
        is_known = plan is not None and plan.observation_ns >= chunk.observation_ns
        is_due = 0 <= now_ns - sent_ns < PLAN_LATENCY_NS
        return with_pending(plan, chunk, sent_ns) if is_due and not is_known else plan

    def fail(self) -> None:
        """Notes that the policy gave no chunk."""
        self.events.add("failed", 0, self.state.observation_ns or 0)
        self.state = schedule.ended(self.state)
        self.incidents[incidents.FAILED] += 1

    def tells_news(self, context: Context) -> bool:
        """Whether a context says what the newest chunk of this epoch should have known; the policy judges."""
        before = self._planned_on
        if self._is_news is None or before is None or before.epoch != context.epoch:
            return False
        return self._is_news(before, context)

    def _note(self, now_ns: int, observation_ns: int | None, plan: ActionChunk | None) -> None:
        """Notes inputs that are new."""
        if observation_ns is not None and observation_ns != self._seen_ns:
            self._seen_ns = observation_ns
            self.events.add("image", now_ns, observation_ns)
        if plan is not self._seen_plan:
            self._seen_plan = plan
            if plan is None:
                self.events.add("plan", now_ns, 0)
            else:
                count, step_ns = len(plan.actions), plan.step_ns
                self.events.add("plan", now_ns, plan.observation_ns, plan.start_ns, committed=count, step_ns=step_ns)

    def _judge(self, job: ActJob, committed: int, now_ns: int) -> None:
        consumed_ns = now_ns - job.observation.stamp_ns
        if not self.timing.waits_for_rest:
            overrun = now_ns - job.started_ns > nanoseconds(self.config.execution_horizon_s)
            self.incidents[incidents.ACT_OVERRUN] += overrun
            self.incidents[incidents.MISSED_DEADLINE] += self._last_end_ns is not None and now_ns > self._last_end_ns
        short = job.committed is not None and consumed_ns > committed * self._step_ns
        self.incidents[incidents.SHORT_PREFIX] += short
