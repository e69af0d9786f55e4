"""The loop of System 2 without its thread: when to encode what, and which results still count."""

from __future__ import annotations

from dataclasses import dataclass

from dit_policy_ros.actions.timing import Timing
from dit_policy_ros.runtime import incidents, schedule
from dit_policy_ros.runtime.event_log import EventLog
from dit_policy_ros.runtime.incidents import Incidents
from dit_policy_ros.runtime.latency import LatencyWindow
from dit_policy_ros.runtime.schedule import LoopState, ScheduleConfig
from dit_policy_ros.types import ActionChunk, Context, Observation, nanoseconds


@dataclass(frozen=True)
class EncodeJob:
    """One encode."""

    started_ns: int
    observation: Observation
    instruction: str
    epoch: int


class SlowSystem:
    """Told the time by its owner. Not thread-safe."""

    def __init__(self, config: ScheduleConfig, timing: Timing | None = None) -> None:
        self.config, self.timing = config, timing or Timing()
        self.state = LoopState()
        self.instruction: str | None = None
        self.epoch = 0
        self.delays = LatencyWindow()
        """From an observation to its context."""
        self.incidents: Incidents = Incidents()
        self.events = EventLog()
        self._seen_ns: int | None = None

    def instruct(self, instruction: str, epoch: int) -> None:
        """Begins an epoch; an encode that still runs belongs to the old one."""
        self.instruction, self.epoch = instruction, epoch
        self.events.add("instruction", 0, 0, epoch=epoch)

    def due(self, now_ns: int, observation_ns: int | None, plan: ActionChunk | None = None) -> bool:
        """Whether an encode should start now.

        Args:
            observation_ns: stamp of the newest observation; None where there is none.
            plan: what is being executed; read by methods that wait for rest.
        """
        self._note(now_ns, observation_ns)
        if self.instruction is None:
            return False
        if self.timing.waits_for_rest and plan is not None and (observation_ns or 0) < plan.end_ns:
            return False
        return schedule.encode_due(self.state, self.config, now_ns, observation_ns, self.epoch)

    def begin(self, now_ns: int, observation: Observation) -> EncodeJob:
        """Starts an encode of an observation."""
        self._note(now_ns, observation.stamp_ns)
        if schedule.jumped_back(self.state, self.config, observation.stamp_ns):
            self.incidents[incidents.CLOCK_JUMP] += 1
        self.state = schedule.started(self.state, now_ns, observation.stamp_ns, self.epoch)
        self.events.add("encode", now_ns, observation.stamp_ns, epoch=self.epoch)
        return EncodeJob(now_ns, observation, self.instruction or "", self.epoch)

    def finish(self, job: EncodeJob, context: Context, now_ns: int) -> Context | None:
        """Returns the context, or None where it is of an old epoch."""
        self.state = schedule.ended(self.state)
        self.delays.add(now_ns - job.observation.stamp_ns)
        self.events.add("context", now_ns, job.observation.stamp_ns, context.stamp_ns, job.epoch)
        period_ns = nanoseconds(self.config.encode_period_s)
        self.incidents[incidents.ENCODE_OVERRUN] += 0 < period_ns < now_ns - job.started_ns
        if job.epoch == self.epoch:
            return context
        self.incidents[incidents.OLD_EPOCH] += 1
        return None

    def fail(self) -> None:
        """Notes that the policy gave no context."""
        self.events.add("failed", 0, self.state.observation_ns or 0)
        self.state = schedule.ended(self.state)
        self.incidents[incidents.FAILED] += 1

    def _note(self, now_ns: int, observation_ns: int | None) -> None:
        """Notes an observation that is new."""
        if observation_ns is not None and observation_ns != self._seen_ns:
            self._seen_ns = observation_ns
            self.events.add("image", now_ns, observation_ns)
