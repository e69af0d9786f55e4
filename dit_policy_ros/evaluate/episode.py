"""One closed-loop episode under a virtual clock: the live runtime code on a simulated body, with given delays.

The loop advances in control periods of 20 ms of the body's own clock; see ``loop``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from dit_policy_ros.evaluate.loop import LoopConfig, SteppedBody, TwoSystemLoop
from dit_policy_ros.evaluate.smoothness import Smoothness
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.runtime.context_watch import ContextWait
from dit_policy_ros.runtime.executor import StateChange
from dit_policy_ros.types import Policy, seconds


class EpisodeScore(Protocol):
    """How an episode stands; see ``sim.body.Score``."""

    reward: int
    sticky: bool
    strict: bool


class EpisodeBody(SteppedBody, Protocol):
    """A body that can be reset and scored."""

    def reset(self, seed: int, phrase_set: str = ...) -> None:
        """Starts a new episode, with an instruction from a set of phrases."""

    def score(self) -> EpisodeScore:
        """Returns how the episode stands now."""


@dataclass(frozen=True)
class EpisodeConfig(LoopConfig):
    """Delays and settings of one episode."""

    steps: int = 400
    """Length in control periods of the body."""
    phrase_set: str = "plain"
    """Which set of phrases the instruction is drawn from; see ``sim.phrases``."""


@dataclass(frozen=True)
class EpisodeResult:
    """What happened; T control periods, C chunks that took effect, J joints in the robot's order."""

    seed: int
    world: str
    instruction: str
    sticky: bool
    strict: bool
    rewards: np.ndarray
    """(T,) int64, after each period."""
    times_s: np.ndarray
    """(T,) since the reset."""
    commanded: np.ndarray
    """(T, J) what the controllers were told to reach; NaN before the first command."""
    measured: np.ndarray
    """(T, J) positions at the start of each period."""
    context_ages_s: np.ndarray
    """(T,) age of the observation behind the context that acts; NaN before the first chunk."""
    splice_times_s: np.ndarray
    """(C,) since the reset."""
    changes: tuple[StateChange, ...]
    """The executor's transitions, with reasons; stamps on the body's clock."""
    refusals: dict[str, int]
    """Refused chunks by kind."""
    starved: dict[str, int]
    """Control periods in which a due inference lacked an observation, by reason."""
    position_hits: np.ndarray
    """(J,) waypoints clamped by a position limit."""
    velocity_hits: np.ndarray
    """(J,) waypoints clamped by the speed limit."""
    encodes: int
    chunks: int
    incidents: dict[str, int]
    """What went wrong in the two loops, by name; see ``runtime.incidents``."""
    smoothness: Smoothness
    context_wait: ContextWait


def run_episode(
    body: EpisodeBody,
    policy: Policy,
    spec: RobotSpec,
    seed: int,
    world: str,
    config: EpisodeConfig | None = None,
    on_step: Callable[[int], None] | None = None,
) -> EpisodeResult:
    """Resets the body and lets the policy drive it.

    Args:
        on_step: called with the number of each control period, after the body was stepped; for frames.

    Raises:
        PolicyError: the policy cannot run on this body.
    """
    config = replace(config or EpisodeConfig(), delay_seed=seed)
    body.reset(seed, config.phrase_set)
    loop = TwoSystemLoop(body, policy, spec, config)
    rewards = []
    for step in range(config.steps):
        loop.step()
        rewards.append(body.score().reward)
        if on_step is not None:
            on_step(step)
    return _result(loop, body, rewards, seed, world)


def _result(loop: TwoSystemLoop, body: EpisodeBody, rewards: list[int], seed: int, world: str) -> EpisodeResult:
    score = body.score()
    splices = loop.log.splices
    times_s = (loop.log.times_ns.array() - loop.start_ns) * 1e-9
    return EpisodeResult(
        seed=seed,
        world=world,
        instruction=body.instruction,
        sticky=score.sticky,
        strict=score.strict,
        rewards=np.array(rewards, dtype=np.int64),
        times_s=times_s,
        commanded=loop.log.commanded.array(),
        measured=loop.log.measured.array(),
        context_ages_s=loop.log.context_ages_s.array(),
        splice_times_s=np.array([seconds(splice.stamp_ns - loop.start_ns) for splice in splices]),
        changes=tuple(loop.log.changes),
        refusals=dict(loop.executor.refusals),
        starved=dict(loop.log.starved),
        position_hits=loop.executor.position_hits.copy(),
        velocity_hits=loop.executor.velocity_hits.copy(),
        encodes=loop.log.encodes,
        chunks=loop.log.chunks,
        incidents=loop.incidents(),
        smoothness=loop.smoothness(),
        context_wait=loop.contexts.wait(body.now_ns()),
    )
