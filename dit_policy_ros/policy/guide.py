"""How guidance joins a family's sampler: as a wrapper around its denoiser or velocity, never around the sampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from dit_policy_ros.policy.guidance.classifier_free import Network

Guide = Callable[[Network], Network]
"""For example ``lambda network: inpainted(network, known, mask, noise, corruption)``."""


def guided(network: Network, guide: Guide | None) -> Network:
    """Returns the network, wrapped where there is a guide."""
    return network if guide is None else guide(network)


def both(inner: Guide | None, outer: Guide | None) -> Guide | None:
    """Returns one guide of two; the outer one wraps what the inner one gives."""
    if inner is None or outer is None:
        return inner or outer
    return lambda network: outer(inner(network))


Rest = TypeVar("Rest")


def guided_actions(
    network: Callable[[Tensor, Any], tuple[Tensor, Rest]], guide: Guide | None
) -> Callable[[Tensor, Any], tuple[Tensor, Rest]]:
    """Guides a network that predicts more than the actions: the rest is what the guided call of it gave.

    Args:
        network: (actions, time) to the prediction for the actions, and anything else.
    """
    if guide is None:
        return network

    def both(x: Tensor, time: Any) -> tuple[Tensor, Rest]:
        rest: list[Rest] = []

        def actions(x: Tensor, time: Any) -> Tensor:
            prediction, other = network(x, time)
            rest[:] = [other]
            return prediction

        prediction = guided(actions, guide)(x, time)
        if not rest:  # the guide knew the actions without asking
            rest.append(network(x, time)[1])
        return prediction, rest[0]

    return both
