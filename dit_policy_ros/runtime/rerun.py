"""A live run once more in virtual time: the same inputs at the same instants must give the same decisions.

What a live run cannot choose is fed back: when observations, contexts, plans and results were there, and when a loop
got to look. Everything else is decided again, by the same code.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np

from dit_policy_ros.actions.splice import committed_prefix
from dit_policy_ros.actions.timing import Timing
from dit_policy_ros.runtime.event_log import Event, EventLog
from dit_policy_ros.runtime.fast_system import ActJob, FastSystem
from dit_policy_ros.runtime.schedule import ScheduleConfig
from dit_policy_ros.runtime.slow_system import EncodeJob, SlowSystem
from dit_policy_ros.types import ActionChunk, Context, Observation, Policy

_TENSORS = {"": np.zeros(0)}


def rerun_fast(
    events: Iterable[Event], policy: Policy, config: ScheduleConfig, timing: Timing | None = None
) -> EventLog:
    """Returns what a fast system does that is given the inputs of another; equal decisions show that they agree.

    Args:
        events: of the other one, from its beginning.
        policy: only its step and multiple are read.
    """
    system = FastSystem(policy, config, timing)
    observation_ns: int | None = None
    plan: ActionChunk | None = None
    job: ActJob | None = None

    for event in events:
        if event.kind == "image":
            observation_ns = event.observation_ns
            system.due(event.stamp_ns, observation_ns, plan)
        elif event.kind == "plan":
            known = (event.context_ns, event.step_ns, event.committed, event.observation_ns)
            plan = _blank(*known) if event.committed else None
            system.due(event.stamp_ns, observation_ns, plan)
        elif event.kind == "heard":
            context = Context(event.context_ns, "", event.epoch, _TENSORS if event.committed else {})
            system.hear(context, is_news=event.committed == 2)
        elif event.kind == "act" and system.due(event.stamp_ns, observation_ns, plan):
            commit = partial(committed_prefix, system.expected(plan, event.stamp_ns))
            job = system.begin(event.stamp_ns, Observation(observation_ns, {}), commit)
        elif event.kind == "chunk" and job is not None:
            system.finish(job, _blank(job.observation.stamp_ns, policy.step_ns, policy.horizon), event.stamp_ns)
            job = None
        elif event.kind == "failed" and job is not None:
            system.fail()
            job = None
    return system.events


def rerun_slow(events: Iterable[Event], config: ScheduleConfig, timing: Timing | None = None) -> EventLog:
    """Returns what a slow system does that is given the inputs of another; see ``rerun_fast``."""
    system = SlowSystem(config, timing)
    observation_ns: int | None = None
    job: EncodeJob | None = None
    for event in events:
        if event.kind == "image":
            observation_ns = event.observation_ns
            system.due(event.stamp_ns, observation_ns)
        elif event.kind == "instruction":
            system.instruct("", event.epoch)
        elif event.kind == "encode" and system.due(event.stamp_ns, observation_ns):
            job = system.begin(event.stamp_ns, Observation(observation_ns, {}))
        elif event.kind == "context" and job is not None:
            system.finish(job, Context(event.context_ns, "", job.epoch, {}), event.stamp_ns)
            job = None
        elif event.kind == "failed" and job is not None:
            system.fail()
            job = None
    return system.events


def _blank(start_ns: int, step_ns: int, count: int, observation_ns: int = 0) -> ActionChunk:
    return ActionChunk((), start_ns, step_ns, np.zeros((count, 0)), observation_ns, committed=count)
