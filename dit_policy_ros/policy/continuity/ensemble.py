"""Ensembles over overlapping chunks: ACT's and CogACT's."""

from __future__ import annotations

from collections import deque
from functools import partial

from dit_policy_ros.actions.ensemble import Rule, adaptive_weights, ensembled, temporal_weights
from dit_policy_ros.actions.timing import Timing
from dit_policy_ros.policy.continuity.wrapped import WrappedPolicy
from dit_policy_ros.types import ActionChunk, Context, Observation

_MOST = 64


class EnsembledPolicy(WrappedPolicy):
    """Every action is a mean over what the chunks of this epoch say of its instant."""

    timing = Timing(commits=False)

    def __init__(self, policy, rule: Rule) -> None:
        super().__init__(policy)
        self._rule = rule
        self._chunks: deque[ActionChunk] = deque(maxlen=_MOST)

    def act(self, observation: Observation, context: Context, committed: ActionChunk | None = None) -> ActionChunk:
        """See ``types.Policy``; the chunks themselves are remembered, not their means."""
        now_ns = observation.stamp_ns
        # Whatever lies ahead of the newest observation is of another time, as after a clock that jumped back.
        kept = [c for c in self._chunks if c.epoch == context.epoch and c.observation_ns < now_ns <= c.end_ns]
        self._chunks = deque((*kept, self.policy.act(observation, context, None)), maxlen=_MOST)
        return ensembled(tuple(self._chunks), self._rule)


def temporal(policy, decay: float = 0.01) -> EnsembledPolicy:
    """ACT (Zhao et al., 2023); see ``actions.ensemble.temporal_weights``."""
    return EnsembledPolicy(policy, partial(temporal_weights, decay=decay))


def adaptive(policy, alpha: float = 0.1) -> EnsembledPolicy:
    """CogACT (Li et al., 2024); see ``actions.ensemble.adaptive_weights``."""
    return EnsembledPolicy(policy, partial(adaptive_weights, alpha=alpha))
