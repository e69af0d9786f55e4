"""Simulated episodes in worker processes, for ``evaluate``."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """What a worker needs to know about an episode, but for its seed."""

    policy: Path
    world: str
    robot: str
    phrases: str
    context_delay_s: float
    action_delay_s: float
    method: str = ""
    """Continuity method; empty for the policy's own."""
    pattern: str = "constant"
    trace: tuple[tuple[str, tuple[float, ...]], ...] = ()
    """Recorded delays by system, instead of a pattern."""
    horizon_s: float | None = None
    encode_period_s: float | None = None
    device: str = "cpu"
    max_context_age_s: float | None = None


def run_episodes(jobs: Sequence[tuple[Task, int]], workers: int) -> Iterator:
    """Yields (task, record) of every (task, seed), in the order in which they end."""
    if workers <= 1:
        yield from map(_job, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers, _leave_interrupts) as pool:
        yield from pool.imap_unordered(_job, jobs)


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; the parent ends its workers itself, without their tracebacks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def frozen_trace(trace: Mapping[str, Iterable[float]]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Returns a trace that can be part of a task."""
    return tuple((system, tuple(values)) for system, values in sorted(trace.items()))


_bodies: dict[tuple[str, str], tuple] = {}
"""World and robot to body and robot description of a worker process, made once."""
_policies: dict[Path, object] = {}


def _job(job: tuple[Task, int]):
    from dit_policy_ros.evaluate.episode import run_episode
    from dit_policy_ros.evaluate.record import from_result
    from dit_policy_ros.policy.continuity.methods import bare, continued

    task, seed = job
    body, robot, policy = _loaded(task)
    # Methods remember chunks; none of another episode. A policy's own method is around it already.
    policy = continued(bare(policy), task.method) if task.method else policy
    body.rewind()
    result = run_episode(body, policy, robot, seed, task.world, _config(task, body.world.episode_steps))
    return task, from_result(result, robot.names, body.start_ns, body.world.max_reward)


def _loaded(task: Task) -> tuple:
    import torch

    from dit_policy_ros.policy.checkpoint import load_policy
    from dit_policy_ros.robot import load_robot
    from dit_policy_ros.sim.body import AlohaBody

    if task.policy not in _policies:
        torch.set_num_threads(1)
        _policies[task.policy] = load_policy(task.policy, device=task.device)
    if (task.world, task.robot) not in _bodies:
        robot = load_robot(task.robot)
        _bodies[task.world, task.robot] = (AlohaBody(task.world, robot), robot)
    return (*_bodies[task.world, task.robot], _policies[task.policy])


def _config(task: Task, steps: int):
    from dit_policy_ros.evaluate.episode import EpisodeConfig
    from dit_policy_ros.runtime.executor_config import ExecutorConfig
    from dit_policy_ros.runtime.schedule import ScheduleConfig

    given = {"execution_horizon_s": task.horizon_s, "encode_period_s": task.encode_period_s}
    limits = {} if task.max_context_age_s is None else {"max_context_age_s": task.max_context_age_s}
    return EpisodeConfig(
        steps=steps,
        context_delay_s=task.context_delay_s,
        action_delay_s=task.action_delay_s,
        delays=task.pattern,
        delay_trace=dict(task.trace) or None,
        phrase_set=task.phrases,
        schedule=ScheduleConfig(**{name: value for name, value in given.items() if value is not None}),
        executor=ExecutorConfig(**limits),
    )
