"""Small random changes of what the network sees, so that it does not learn its recordings by heart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.actions.minimum_jerk import minimum_jerk


def jitter(images: Tensor, size: float, rng: np.random.Generator) -> Tensor:
    """Changes brightness and contrast of each image, (..., 3, H, W), by up to ``size``; values stay around -1..1."""
    shape = (*images.shape[:-3], 1, 1, 1)
    gain = torch.from_numpy(1.0 + rng.uniform(-size, size, shape)).float()
    shift = torch.from_numpy(rng.uniform(-size, size, shape)).float()
    return images * gain + shift


def displaced(
    state: np.ndarray,
    actions: np.ndarray,
    committed: int,
    arms: np.ndarray,
    size: float,
    back_steps: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Puts a robot beside its demonstrated path, and leads it back: what a policy needs to mend its own errors.

    What is committed goes on beside the path; from then on the displacement dies away on a minimum-jerk curve.

    Args:
        state: (J,) normalised.
        actions: (H, J) normalised.
        committed: leading actions that stand already.
        arms: (J,) bool, joints to displace; grippers open and close at their time.
        size: largest spread of the displacement of a joint, normalised.
        back_steps: actions until the path is reached.

    Returns:
        Another state and other actions.
    """
    offset = np.where(arms, rng.normal(0.0, rng.uniform(0.0, size), len(state)), 0.0)
    s = np.clip((np.arange(len(actions)) - committed + 1) / back_steps, 0.0, 1.0)
    left = 1.0 - minimum_jerk(s)
    return state + offset, actions + left[:, None] * offset
