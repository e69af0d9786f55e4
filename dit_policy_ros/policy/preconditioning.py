"""The preconditioning of EDM on batches: a noise level for every sample (Karras et al., 2022).

The samplers in ``samplers/edm.py`` work on one level for all; networks and losses need them per sample.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class BatchScalings(NamedTuple):
    """``denoised = skip * x + out * network(into * x)``, each (B, 1, 1)."""

    skip: Tensor
    out: Tensor
    into: Tensor


def levels(sigma: Tensor | float, like: Tensor) -> Tensor:
    """Returns (B,) noise levels in float32 for a batch like this one, from one or from as many."""
    return torch.as_tensor(sigma, dtype=torch.float32, device=like.device).expand(len(like))


def batch_scalings(sigma: Tensor, sigma_data: float, dtype: torch.dtype = torch.float32) -> BatchScalings:
    """Returns the scalings at (B,) noise levels, for actions of standard deviation ``sigma_data``.

    Args:
        dtype: of the result; the sums are float32, since a level of 80 swallows ``sigma_data`` in half precision.
    """
    sigma = sigma.float().reshape(-1, 1, 1)
    total = sigma.square() + sigma_data**2
    parts = sigma_data**2 / total, sigma * sigma_data / total.sqrt(), total.rsqrt()
    return BatchScalings(*(part.to(dtype) for part in parts))


def network_target(clean: Tensor, noisy: Tensor, scalings: BatchScalings) -> Tensor:
    """Returns what the raw network has to output for ``noisy`` to be denoised to ``clean``."""
    return (clean - scalings.skip * noisy) / scalings.out
