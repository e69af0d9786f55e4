"""How guidance joins a family's sampler: as a wrapper around its denoiser or velocity, never around the sampler."""

from __future__ import annotations

from collections.abc import Callable

from dit_policy_ros.policy.guidance.classifier_free import Network

Guide = Callable[[Network], Network]
"""For example ``lambda network: inpainted(network, known, mask, noise, corruption)``."""


def guided(network: Network, guide: Guide | None) -> Network:
    """Returns the network, wrapped where there is a guide."""
    return network if guide is None else guide(network)
