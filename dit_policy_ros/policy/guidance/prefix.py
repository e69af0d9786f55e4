"""Hard prefix: known actions are written into the sample before every network call (in-painting)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.schedules import NoiseSchedule

Corruption = Callable[[Any], tuple[float, float]]
"""Time to (alpha, sigma) of ``x = alpha action + sigma noise``."""


def flow_corruption(t: float) -> tuple[float, float]:
    """Corruption of flow matching, t from 0 (noise) to 1 (action)."""
    return t, 1.0 - t


def edm_corruption(sigma: float) -> tuple[float, float]:
    """Corruption of EDM."""
    return 1.0, sigma


def diffusion_corruption(schedule: NoiseSchedule) -> Corruption:
    """Corruption of a variance-preserving schedule."""

    def corruption(step: int) -> tuple[float, float]:
        alpha_bar = schedule.alpha_bar(step)
        return math.sqrt(alpha_bar), math.sqrt(1.0 - alpha_bar)

    return corruption


def inpainted(
    network: Network,
    known: Tensor,
    mask: Tensor,
    noise: Tensor | None = None,
    corruption: Corruption | None = None,
) -> Network:
    """Returns a network that sees the known actions at its own noise level.

    The sampler's own copy of the masked entries is free to drift, since the network never reads it: finish with
    :func:`overwritten`.

    Args:
        network: denoiser or velocity.
        known: (B, H, A), read where the mask is true.
        mask: bool, broadcasts to ``known``; for a prefix ``torch.arange(H)[:, None] < count``.
        noise: (B, H, A) noise of the known actions, usually the start of the sampler.
        corruption: noise level at a time. None writes clean actions, for networks trained that way (the in-painting
            variant of diffusion policy, training-time real-time chunking).
    """

    def guided(x: Tensor, time: Any) -> Tensor:
        if corruption is None or noise is None:
            written = known
        else:
            alpha, sigma = corruption(time)
            written = alpha * known + sigma * noise
        return network(torch.where(mask, written, x), time)

    return guided


def overwritten(sample: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    """Returns the sample with the known actions written in, unchanged to the last bit."""
    return torch.where(mask, known, sample)
