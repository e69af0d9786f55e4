"""When the slow and the fast system start, and how much is committed meanwhile. Pure functions of given clocks.

Both systems are one loop each: at most one inference runs, the next one starts from the newest observation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dit_policy_ros.types import Context, nanoseconds, seconds


@dataclass(frozen=True)
class ScheduleConfig:
    """How eagerly the two loops run."""

    execution_horizon_s: float = 0.0
    """A new chunk is planned this long after the observation of the last one, [s].

    0: as the policy says, or two thirds of a chunk.
    """
    encode_period_s: float = 0.0
    """Least time between the starts of two encodes, [s]; 0: as soon as the last ended."""
    first_delay_s: float = 0.1
    """Assumed delay of a chunk until one was measured, [s]."""
    delay_margin_s: float = 0.01
    """Added to the measured delay: transport and the executor's own period, [s]."""
    commit_min_steps: int = 0
    commit_max_steps: int = 24
    """The committed prefix is never longer, in steps of the policy."""
    clock_jump_s: float = 1.0
    """An observation this much older than the last used one means that time jumped back, [s].

    A clock that goes this much ahead between two rounds of an idle loop has jumped as well.
    """


def fitted(config: ScheduleConfig, chunk_ns: int, preferred_s: float = 0.0) -> ScheduleConfig:
    """Returns the configuration with its execution horizon resolved for chunks of this length.

    Two thirds leave the last third for inference and its delays. Chunks are joined as seldom as that allows: what
    follows from one draw of noise is smoother than what follows from two.

    Args:
        preferred_s: the policy's own choice, 0 for none.
    """
    if config.execution_horizon_s > 0.0:
        return config
    return replace(config, execution_horizon_s=preferred_s or seconds(chunk_ns * 2 // 3))


@dataclass(frozen=True)
class LoopState:
    """One of the two loops."""

    started_ns: int | None = None
    """When the newest inference started; None before the first."""
    running: bool = False
    observation_ns: int | None = None
    """Stamp of the newest observation that was used."""
    epoch: int = -1
    """Epoch of the newest inference."""


def encode_due(state: LoopState, config: ScheduleConfig, now_ns: int, observation_ns: int | None, epoch: int) -> bool:
    """Whether the slow system should start: it is idle, and there is a newer observation or a new epoch."""
    if state.running or observation_ns is None:
        return False
    if state.epoch != epoch or state.started_ns is None:
        return True
    waited = now_ns - state.started_ns >= nanoseconds(config.encode_period_s) or now_ns < state.started_ns
    return waited and _is_newer(state, config, observation_ns)


def chunk_due(
    state: LoopState,
    config: ScheduleConfig,
    now_ns: int,
    observation_ns: int | None,
    context: Context | None,
    epoch: int,
    news: bool = False,
) -> bool:
    """Whether the fast system should start.

    It must be idle, with a context of this epoch; then it does in a new epoch, at its horizon, or at news.
    """
    if state.running or observation_ns is None or context is None or context.epoch != epoch:
        return False
    if state.epoch != epoch or state.observation_ns is None:
        return True
    at_horizon = news or now_ns >= next_chunk_ns(state, config) or observation_ns < state.observation_ns
    return at_horizon and _is_newer(state, config, observation_ns)


def next_chunk_ns(state: LoopState, config: ScheduleConfig) -> int:
    """Returns the earliest instant at which an idle fast loop plans again within one epoch."""
    return 0 if state.observation_ns is None else state.observation_ns + nanoseconds(config.execution_horizon_s)


def started(state: LoopState, now_ns: int, observation_ns: int, epoch: int) -> LoopState:
    """Returns the loop with an inference running."""
    return replace(state, started_ns=now_ns, running=True, observation_ns=observation_ns, epoch=epoch)


def ended(state: LoopState) -> LoopState:
    """Returns the loop idle, whether its inference gave a result or failed."""
    return replace(state, running=False)


def commit_steps(delay_ns: int | None, step_ns: int, multiple: int, config: ScheduleConfig, warm_up_ns: int = 0) -> int:
    """Returns how many leading actions of the next chunk are executed before it can take effect.

    Args:
        delay_ns: of ``likely_delay_ns``; None before the first.
        warm_up_ns: what the first chunk took; a bound only until another was measured.
        step_ns: the policy's step.
        multiple: the policy takes prefixes of a multiple of this length only.
    """
    delay_ns = max(nanoseconds(config.first_delay_s), warm_up_ns) if delay_ns is None else delay_ns
    steps = -(-(delay_ns + nanoseconds(config.delay_margin_s)) // step_ns)
    steps = min(max(steps, config.commit_min_steps), config.commit_max_steps)
    up = -(-steps // multiple) * multiple
    return up if up <= config.commit_max_steps else config.commit_max_steps // multiple * multiple


def likely_delay_ns(p50_ns: int | None, p95_ns: int | None, config: ScheduleConfig) -> int | None:
    """Returns the delay of the next chunk that its prefix is to cover; None where no delay was measured.

    That is the 95th percentile. Where the usual delay is within an execution horizon, it is no more than the horizon:
    a chunk that began with more of the running plan would be replaced before anything of its own was executed, and a
    rare long delay would make all chunks like that.

    Args:
        config: with its execution horizon resolved.
    """
    if p50_ns is None or p95_ns is None:
        return None
    horizon_ns = nanoseconds(max(0.0, config.execution_horizon_s - config.delay_margin_s))
    return min(p95_ns, max(p50_ns, horizon_ns))


def jumped_back(state: LoopState, config: ScheduleConfig, observation_ns: int) -> bool:
    """Whether an observation is so much older than the last used one that time must have begun anew."""
    return state.observation_ns is not None and observation_ns < state.observation_ns - nanoseconds(config.clock_jump_s)


def _is_newer(state: LoopState, config: ScheduleConfig, observation_ns: int) -> bool:
    if state.observation_ns is None or observation_ns > state.observation_ns:
        return True
    return jumped_back(state, config, observation_ns)
