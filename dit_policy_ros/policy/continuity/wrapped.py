"""A policy around a policy: what all continuity methods share."""

from __future__ import annotations

from typing import Protocol

from dit_policy_ros.actions.timing import Timing
from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.steering import Steering
from dit_policy_ros.types import ActionChunk, Context, Observation


class SteeredPolicy(Protocol):
    """A ``types.Policy`` whose sampling can be taken part in."""

    predicts: str

    def act(
        self,
        observation: Observation,
        context: Context,
        committed: ActionChunk | None = None,
        steering: Steering | None = None,
    ) -> ActionChunk:
        """See ``types.Policy``."""


class WrappedPolicy:
    """Passes everything on to the policy inside. Methods override ``act``, and remember their chunks here."""

    timing = Timing()
    commit_multiple = 1
    joins = True
    """Whether this is a continuity method, which another one may take the place of."""

    def __init__(self, policy) -> None:
        self.policy = policy
        self.last: ActionChunk | None = None
        """The newest chunk, as it was handed out."""

    @property
    def horizon(self) -> int:
        """Number of actions in a chunk."""
        return self.policy.horizon

    @property
    def step_ns(self) -> int:
        """Time between two actions, [ns]."""
        return self.policy.step_ns

    @property
    def frames(self) -> int:
        """Images of each camera that ``encode`` looks at, one step apart."""
        return getattr(self.policy, "frames", 1)

    @property
    def slow_cameras(self) -> tuple[str, ...]:
        """Cameras that ``encode`` looks at."""
        return self.policy.slow_cameras

    @property
    def fast_cameras(self) -> tuple[str, ...]:
        """Cameras that ``act`` looks at."""
        return self.policy.fast_cameras

    @property
    def execution_horizon_s(self) -> float:
        """How long the policy wants a chunk to be followed; 0 where it does not say."""
        return getattr(self.policy, "execution_horizon_s", 0.0)

    @property
    def is_news(self):
        """The policy's own judgement of contexts; None where it has none."""
        return getattr(self.policy, "is_news", None)

    def example_observation(self) -> Observation:
        """Returns an observation that the policy accepts."""
        return self.policy.example_observation()

    def encode(self, observation: Observation, instruction: str, epoch: int = 0) -> Context:
        """System 2; see ``types.Policy``."""
        return self.policy.encode(observation, instruction, epoch)

    def act(self, observation: Observation, context: Context, committed: ActionChunk | None = None) -> ActionChunk:
        """System 1; see ``types.Policy``."""
        return self.policy.act(observation, context, committed)

    def previous(self, observation: Observation, context: Context) -> ActionChunk | None:
        """Returns the last chunk where it is of this epoch, older than the observation, and not over yet."""
        last = self.last
        if last is None or last.epoch != context.epoch:
            return None
        fits = last.observation_ns <= observation.stamp_ns <= last.end_ns and last.start_ns <= observation.stamp_ns
        return last if fits else None


class TimedPolicy(WrappedPolicy):
    """A policy as it is, under another timing."""

    def __init__(self, policy, timing: Timing) -> None:
        super().__init__(policy)
        self.timing = timing

    @property
    def commit_multiple(self) -> int:
        """The committed prefix must be a multiple of this many actions."""
        return getattr(self.policy, "commit_multiple", 1)


def must_steer(policy, method: str, predicts: tuple[str, ...] = ("velocity", "epsilon", "sample", "v")) -> None:
    """Refuses policies that a method cannot take part in.

    Raises:
        PolicyError: it has no sampler, or predicts something else.
    """
    kind = getattr(policy, "predicts", None)
    if kind is None:
        raise PolicyError(f"The method '{method}' takes part in sampling; {type(policy).__name__} does not allow it.")
    if kind not in predicts:
        raise PolicyError(
            f"The method '{method}' is for networks that predict {' or '.join(predicts)}; this one predicts {kind}. "
            "See docs/asynchrony.md for what it admits."
        )
