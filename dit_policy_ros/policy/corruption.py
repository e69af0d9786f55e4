"""Noisy actions for training: what a network sees at a diffusion step or flow time."""

from __future__ import annotations

import torch
from torch import Tensor

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.samplers.prediction import PREDICTIONS
from dit_policy_ros.policy.schedules import NoiseSchedule


def diffused(action: Tensor, noise: Tensor, steps: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Returns ``sqrt(abar) action + sqrt(1 - abar) noise``.

    Args:
        action: (B, ...) clean actions.
        noise: same shape.
        steps: (B,) integer diffusion steps.
    """
    alpha, sigma = _levels(action, steps, schedule)
    return alpha * action + sigma * noise


def diffusion_target(action: Tensor, noise: Tensor, steps: Tensor, schedule: NoiseSchedule, prediction: str) -> Tensor:
    """Returns what a network learns at (B,) diffusion steps: 'epsilon', 'sample' or 'v', shape of ``action``.

    Raises:
        PolicyError: unknown prediction.
    """
    if prediction not in PREDICTIONS:
        raise PolicyError(one_of("Prediction", prediction, PREDICTIONS))
    if prediction == "v":
        alpha, sigma = _levels(action, steps, schedule)
        return alpha * noise - sigma * action
    return action if prediction == "sample" else noise


def _levels(action: Tensor, steps: Tensor, schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    table = torch.tensor(schedule.alphas_cumprod, dtype=torch.float64)
    alpha_bar = table[steps.cpu()].reshape(-1, *[1] * (action.ndim - 1))
    return alpha_bar.sqrt().to(action), (1 - alpha_bar).sqrt().to(action)


def interpolated(action: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Returns ``t action + (1 - t) noise`` for (B,) flow times."""
    t = times.to(action).reshape(-1, *[1] * (action.ndim - 1))
    return t * action + (1 - t) * noise
