"""The preconditioning of "Elucidating the Design Space of Diffusion-Based Generative Models" (Karras et al., 2022)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dit_policy_ros.policy.samplers.edm import EdmDenoiser


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


def precondition(network: EdmDenoiser, sigma_data: float = 0.5) -> EdmDenoiser:
    """Makes a denoiser of a raw network, which is called with the scaled sample (B, H, A) and the plain sigma."""

    def denoiser(x: Tensor, sigma: float) -> Tensor:
        c = batch_scalings(levels(sigma, x), sigma_data, x.dtype)
        return c.skip * x + c.out * network(c.into * x, sigma)

    return denoiser
