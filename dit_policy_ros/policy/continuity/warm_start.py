"""Warm start after RTI-DP (Duan et al., 2025): the last chunk, moved on in time, is noised a little and denoised again.

The published method is for diffusion; the same is done here at any noise level of any corruption, so that it serves
flow matching as well. It enters as a guide: at the noisier levels the network is not called, and the prediction that
leads straight to the last chunk is returned, which puts the sampler where it would have started.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dit_policy_ros.actions.timing import Timing
from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.continuity.wrapped import WrappedPolicy, must_steer
from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.guide import Guide
from dit_policy_ros.policy.steering import Drawing, Steering
from dit_policy_ros.types import ActionChunk, Context, Observation


class WarmStartedPolicy(WrappedPolicy):
    """Starts from the last chunk of the epoch, where there is one."""

    timing = Timing(commits=False)

    def __init__(self, policy, noise: float = 0.6) -> None:
        """Wraps a policy.

        Args:
            noise: share of noise, sigma / (alpha + sigma), from which on the network is called; 0 would repeat the
                last chunk, 1 starts from noise alone.

        Raises:
            PolicyError: the share is not within 0 and 1, or the policy cannot be steered.
        """
        must_steer(policy, "warm_start")
        if not 0.0 < noise < 1.0:
            raise PolicyError(f"A warm start with noise {noise} is none; allowed are shares between 0 and 1.")
        super().__init__(policy)
        self._noise = noise

    def act(self, observation: Observation, context: Context, committed: ActionChunk | None = None) -> ActionChunk:
        """See ``types.Policy``."""
        previous = self.previous(observation, context)
        steering = None
        if previous is not None:
            steering = Steering(guide=lambda drawing: warm_guide(drawing, drawing.of(previous)[0], self._noise))
        self.last = self.policy.act(observation, context, None, steering)
        return self.last


def warm_guide(drawing: Drawing, clean: Tensor, noise: float) -> Guide:
    """Returns the guide that skips the network wherever the share of noise is above ``noise``.

    Args:
        clean: (1, H, A) the last chunk at the instants of the new one; rows before ``drawing.lead`` may hold anything.
    """
    if drawing.lead:
        clean = clean.clone()
        clean[:, : drawing.lead] = clean[:, drawing.lead : drawing.lead + 1]

    def guide(network: Network) -> Network:
        def warm(x: Tensor, time: Any) -> Tensor:
            alpha, sigma = drawing.corruption(time)
            if sigma / (alpha + sigma) <= noise + 1e-9:
                return network(x, time)
            return prediction_of(clean, x, alpha, sigma, drawing.predicts)

        return warm

    return guide


def prediction_of(clean: Tensor, x: Tensor, alpha: float, sigma: float, predicts: str) -> Tensor:
    """Returns what a network predicts at ``x = alpha action + sigma noise`` where it takes ``clean`` for the action.

    A velocity is that of flow matching, for which alpha + sigma is 1.
    """
    if predicts == "velocity":
        return (clean - x) / sigma
    if predicts == "sample":
        return clean
    epsilon = (x - alpha * clean) / sigma
    return epsilon if predicts == "epsilon" else alpha * epsilon - sigma * clean
