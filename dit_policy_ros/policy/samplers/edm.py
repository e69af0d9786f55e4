"""Samplers of "Elucidating the Design Space of Diffusion-Based Generative Models" (Karras, 2022).

The sample is ``action + sigma * noise``; a denoiser returns the clean action at a noise level.
``preconditioning.precondition`` makes one of a raw network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dit_policy_ros.errors import PolicyError

EdmDenoiser = Callable[[Tensor, float], Tensor]
"""``denoiser(x, sigma)`` is the clean action, shape of x."""


def _intervals(sigmas: Sequence[float]) -> list[tuple[float, float]]:
    pairs = list(pairwise(sigmas))
    if not pairs or any(sigma <= after for sigma, after in pairs) or sigmas[-1] < 0:
        raise PolicyError(f"Noise levels must be at least two, descending, and not negative; got {list(sigmas)}.")
    return pairs


@torch.no_grad()
def edm_euler(denoiser: EdmDenoiser, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Euler steps on the probability flow, order 1.

    Args:
        denoiser: see :data:`EdmDenoiser`.
        x: the start, ``sigmas[0]`` times standard normal noise.
        sigmas: noise levels, descending, usually ending in 0.

    Raises:
        PolicyError: the levels are not descending.
    """
    for sigma, after in _intervals(sigmas):
        x = x + (after - sigma) / sigma * (x - denoiser(x, sigma))
    return x


@torch.no_grad()
def edm_ddim(denoiser: EdmDenoiser, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """The same as :func:`edm_euler`, summed so that the step to 0 is exactly the denoised action.

    Raises:
        PolicyError: the levels are not descending.
    """
    for sigma, after in _intervals(sigmas):
        ratio = after / sigma
        x = ratio * x + (1 - ratio) * denoiser(x, sigma)
    return x


@torch.no_grad()
def edm_heun(denoiser: EdmDenoiser, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Heun steps (Algorithm 1 without churn), order 2; a step to 0 is an Euler step.

    Raises:
        PolicyError: the levels are not descending.
    """
    for sigma, after in _intervals(sigmas):
        slope = (x - denoiser(x, sigma)) / sigma
        ahead = x + (after - sigma) * slope
        if after == 0:
            return ahead
        x = x + (after - sigma) / 2 * (slope + (ahead - denoiser(ahead, after)) / after)
    return x
