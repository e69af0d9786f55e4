"""Classifier-free guidance (Ho and Salimans, 2022) and its adaptive variant (Castillo et al., 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Network = Callable[[Tensor, Any], Tensor]
"""A denoiser or velocity: (x, time) to a tensor of the shape of x."""


def classifier_free(conditional: Network, unconditional: Network, scale: float) -> Network:
    """Returns ``unconditional + scale * (conditional - unconditional)``; a scale of 1 never calls the second."""
    if scale == 1.0:
        return conditional

    def guided(x: Tensor, time: Any) -> Tensor:
        without = unconditional(x, time)
        return without + scale * (conditional(x, time) - without)

    return guided


def adaptive_classifier_free(
    conditional: Network, unconditional: Network, scale: float, threshold: float = 0.99
) -> Network:
    """Guides until both networks agree, and then calls the conditional one only.

    They agree once the cosine between their predictions, each sample of the batch as one vector, reaches
    ``threshold`` for the whole batch. Asking costs one transfer from the device a step until then. The wrapper
    remembers the answer, so it serves one sampling run.
    """
    agreed = False

    def guided(x: Tensor, time: Any) -> Tensor:
        nonlocal agreed
        given = conditional(x, time)
        if agreed:
            return given
        without = unconditional(x, time)
        cosine = torch.cosine_similarity(given.flatten(1), without.flatten(1), dim=1)
        agreed = bool((cosine >= threshold).all())
        return without + scale * (given - without)

    return guided
