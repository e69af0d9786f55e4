"""General policy composition (Cao et al., 2025): one chunk from several policies at test time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.guidance.classifier_free import Network


def composed(networks: Sequence[Network], weights: Sequence[float]) -> Network:
    """Returns the weighted sum of the raw predictions, all at the same sample and time.

    The networks must share schedule, prediction type and action normalisation; each carries its own observation.

    Args:
        networks: denoisers or velocities.
        weights: one for each; the authors' add up to one, which is not required.

    Raises:
        PolicyError: no networks, or not one weight each.
    """
    if not networks or len(networks) != len(weights):
        raise PolicyError(f"Got {len(networks)} policies and {len(weights)} weights; give one weight to each policy.")

    def guided(x: Tensor, time: Any) -> Tensor:
        total = weights[0] * networks[0](x, time)
        for network, weight in zip(networks[1:], weights[1:], strict=True):
            total = total + weight * network(x, time)
        return total

    return guided
