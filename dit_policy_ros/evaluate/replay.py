"""A policy on a recording, in virtual time: the live runtime code sees what the robot saw, and nothing moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from dit_policy_ros.data.bag_reader import Episode
from dit_policy_ros.data.recorded_body import PERIOD_NS, RecordedBody, RecordedTargets
from dit_policy_ros.errors import BagError, ConfigError, PolicyError, one_of
from dit_policy_ros.evaluate.horizon_errors import ErrorSummary, HorizonErrors
from dit_policy_ros.evaluate.interventions import InterventionLog
from dit_policy_ros.evaluate.loop import LoopConfig, TwoSystemLoop
from dit_policy_ros.evaluate.smoothness import SeamLog
from dit_policy_ros.evaluate.suspicion import places_of, suspicions
from dit_policy_ros.types import ActionChunk, Policy, seconds

OPEN_LOOP, SHADOW = "open-loop", "shadow"
MODES = (OPEN_LOOP, SHADOW)
"""open-loop: a chunk is committed to what was recorded. shadow: to what the executor would have sent."""
LIMITS = {
    "position limit": "position",
    "speed limit": "velocity",
    "acceleration limit": "acceleration",
    "jerk limit": "jerk",
}
"""Kind of intervention to the kind of limit."""


@dataclass(frozen=True)
class ReplayResult:
    """What came out; T control periods, J joints in the robot's order, S splices."""

    mode: str
    joint_names: tuple[str, ...]
    instruction: str
    start_ns: int
    errors: ErrorSummary
    suspicions: tuple[str, ...]
    times_s: np.ndarray
    """(T,) since the first joint state."""
    commanded: np.ndarray
    """(T, J) what the controllers would have been told; NaN before the first command."""
    measured: np.ndarray
    """(T, J) as recorded."""
    context_ages_s: np.ndarray
    """(T,)."""
    seams: SeamLog
    """How each chunk went on from the plan before."""
    interventions: InterventionLog
    starved: dict[str, int]
    """Control periods in which a due inference lacked an observation, by reason."""
    hits: Mapping[str, np.ndarray]
    """Limit, of ``LIMITS``, to (J,) waypoints of chunks, and pieces of the motion between them, that it changed."""
    refusals: dict[str, int]
    """Refused chunks by kind."""
    encodes: int
    chunks: int
    trajectories: int
    """How many would have been sent."""


def run_replay(
    episode: Episode,
    policy: Policy,
    mode: str = OPEN_LOOP,
    config: LoopConfig | None = None,
    on_chunk: Callable[[ActionChunk], None] | None = None,
) -> ReplayResult:
    """Replays a whole recording.

    Args:
        config: delays; ``image_period_s`` is not used, since the recording has its own stamps.
        on_chunk: is told of every chunk, for those who watch.

    Raises:
        ConfigError: there is no such mode.
        BagError: the bag has no commands, lacks a camera of the policy, or is too short for a single chunk.
        PolicyError: the policy is for another robot.
    """
    if mode not in MODES:
        raise ConfigError(one_of("Mode", mode, MODES))
    spec = episode.robot
    cameras = tuple(dict.fromkeys((*policy.slow_cameras, *policy.fast_cameras)))
    unknown = [camera for camera in cameras if camera not in spec.cameras]
    if unknown:
        known = ", ".join(sorted(spec.cameras)) or "none"
        raise PolicyError(
            f"The policy looks at camera {', '.join(unknown)}, which robot {spec.name} lacks. Its cameras: {known}."
        )
    config = config or LoopConfig()
    loop = _ReplayLoop(episode, policy, mode, cameras, config)
    loop.on_chunk = on_chunk
    while not loop.body.is_over:
        loop.step()
    errors = loop.error_summary()
    if not len(errors.chunk_ns):
        reasons = ", ".join(sorted(loop.log.starved)) or "it is too short, or nothing was commanded while it ran"
        raise BagError(f"{episode.bag.path}: no chunk could be compared with what was recorded ({reasons}).")
    return loop.replayed(mode, errors)


class _ReplayLoop(TwoSystemLoop):
    """The loop on a recorded body, with every chunk held against the recording."""

    def __init__(
        self, episode: Episode, policy: Policy, mode: str, cameras: tuple[str, ...], config: LoopConfig
    ) -> None:
        self.targets = RecordedTargets(episode)
        every_period = replace(config, image_period_s=seconds(PERIOD_NS))
        super().__init__(RecordedBody(episode, cameras), policy, episode.robot, every_period)
        spec = episode.robot
        readings = [None, *([places] if (places := places_of(spec)) else [])]
        self._errors = [
            HorizonErrors(spec.names, spec.lower, spec.upper, self.targets, policy.horizon, reading)
            for reading in readings
        ]
        self.interventions = InterventionLog()
        self.seams = SeamLog(len(spec.names))
        self.trajectories = 0
        self.on_chunk: Callable[[ActionChunk], None] | None = None
        self._mode, self._spec = mode, spec

    def step(self) -> None:
        """One control period, and what the executor changed or refused in it."""
        now_ns, executor = self.body.now_ns(), self.executor
        refused, before = Counter(executor.refusals), self._hits()
        super().step()
        time_s = seconds(now_ns - self.start_ns)
        for kind, hits in self._hits().items():
            new = hits - before[kind]
            if new.any():
                text = ", ".join(f"{executor.names[k]} ({new[k]})" for k in np.flatnonzero(new))
                self.interventions.append(time_s, kind, text)
        for reason, count in sorted((Counter(executor.refusals) - refused).items()):
            self.interventions.append(time_s, "refused", reason if count == 1 else f"{reason} ({count})")
        for text in self.log.failures:
            self.interventions.append(time_s, "policy failed", text)
        for change in self.log.changes:
            if change.stamp_ns >= self.start_ns:
                text = f"{change.after.value}: {change.reason}"
                self.interventions.append(seconds(change.stamp_ns - self.start_ns), "state", text)
        self._file()

    def _hits(self) -> dict[str, np.ndarray]:
        """Returns limit to the number of times it changed something so far, (J,)."""
        return {kind: getattr(self.executor, f"{limit}_hits").copy() for kind, limit in LIMITS.items()}

    def _file(self) -> None:
        """Keeps of this period what the report needs, so that memory does not grow with the bag."""
        log = self.log
        for seam in log.seams:
            self.seams.append(seam)
        self.trajectories += len(self.body.commands)
        for entries in (log.seams, log.splices, log.failures, log.changes, self.body.commands):
            entries.clear()

    def committed(self, start_ns: int, step_ns: int, count: int) -> ActionChunk | None:
        """In open loop, what the recorded commands did next: the robot did go there."""
        if self._mode == SHADOW:
            return super().committed(start_ns, step_ns, count)
        times_ns = start_ns + step_ns * np.arange(count, dtype=np.int64)
        targets = self.targets.at(times_ns)
        if not count or not np.isfinite(targets).all():
            return None
        return ActionChunk(self._spec.names, start_ns, step_ns, targets, epoch=self.epoch, committed=count)

    def took(self, chunk: ActionChunk) -> None:
        """Compares a chunk."""
        if set(chunk.names) != set(self._spec.names):
            raise PolicyError(
                f"The policy moves {', '.join(chunk.names)}, but robot {self._spec.name} has "
                f"{', '.join(self._spec.names)}; give the robot description that it was trained with."
            )
        if self.on_chunk is not None:
            self.on_chunk(chunk)
        if np.isfinite(chunk.actions).all():  # The executor refuses others, and they are among the interventions.
            measured = self.body.episode.joints.positions_at(np.array([chunk.observation_ns]))[0]
            for errors in self._errors:
                errors.add(chunk, measured)

    def error_summary(self) -> ErrorSummary:
        """Returns the errors; where names and places of the joints contradict each other, the larger ones."""
        summaries = [errors.summary() for errors in self._errors]
        return max(summaries, key=lambda summary: float(np.nan_to_num(summary.overall[0])))

    def replayed(self, mode: str, errors: ErrorSummary) -> ReplayResult:
        """Returns what happened."""
        log, executor = self.log, self.executor
        return ReplayResult(
            mode=mode,
            joint_names=executor.names,
            instruction=self.body.episode.instruction,
            start_ns=self.start_ns,
            errors=errors,
            suspicions=suspicions(errors, self._spec),
            times_s=(log.times_ns.array() - self.start_ns) * 1e-9,
            commanded=log.commanded.array(),
            measured=log.measured.array(),
            context_ages_s=log.context_ages_s.array(),
            seams=self.seams,
            interventions=self.interventions,
            starved=dict(sorted(log.starved.items())),
            hits=self._hits(),
            refusals=dict(sorted(executor.refusals.items())),
            encodes=log.encodes,
            chunks=log.chunks,
            trajectories=self.trajectories,
        )
