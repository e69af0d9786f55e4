"""Noisy actions for training: what a network sees at a diffusion step or flow time."""

from __future__ import annotations

import torch
from torch import Tensor

from dit_policy_ros.policy.schedules import NoiseSchedule


def diffused(action: Tensor, noise: Tensor, steps: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Returns ``sqrt(abar) action + sqrt(1 - abar) noise``.

    Args:
        action: (B, ...) clean actions.
        noise: same shape.
        steps: (B,) integer diffusion steps.
    """
    table = torch.tensor(schedule.alphas_cumprod, dtype=torch.float64)
    alpha_bar = table[steps.cpu()].reshape(-1, *[1] * (action.ndim - 1))
    return alpha_bar.sqrt().to(action) * action + (1 - alpha_bar).sqrt().to(action) * noise


def interpolated(action: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Returns ``t action + (1 - t) noise`` for (B,) flow times."""
    t = times.to(action).reshape(-1, *[1] * (action.ndim - 1))
    return t * action + (1 - t) * noise
