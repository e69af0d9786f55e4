"""Small random changes of what the network sees, so that it does not learn its recordings by heart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.policy.text import BUCKETS


def jitter(images: Tensor, size: float, rng: np.random.Generator) -> Tensor:
    """Changes brightness and contrast of each image, (..., 3, H, W), by up to ``size``; values stay around -1..1."""
    shape = (*images.shape[:-3], 1, 1, 1)
    gain = torch.from_numpy(1.0 + rng.uniform(-size, size, shape)).float()
    shift = torch.from_numpy(rng.uniform(-size, size, shape)).float()
    return images * gain + shift


def forget_words(hashed: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Replaces a share of the words, (B, words, pieces), by random pieces."""
    forget = torch.from_numpy(rng.random(hashed.shape[:2]) < share)
    strange = torch.from_numpy(rng.integers(1, BUCKETS, hashed.shape))
    return torch.where(forget[..., None] & (hashed != 0), strange, hashed)
