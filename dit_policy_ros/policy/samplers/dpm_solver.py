"""DPM-Solver++ (Lu et al., 2022): multistep, midpoint form, data prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.samplers.ddim import Denoiser
from dit_policy_ros.policy.samplers.prediction import clean_and_noise, descents
from dit_policy_ros.policy.schedules import NoiseSchedule


@torch.no_grad()
def dpm_solver(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    schedule: NoiseSchedule,
    prediction: str = "sample",
    clip: float | None = None,
    order: int = 2,
) -> Tensor:
    """Samples deterministically; the first and the last step are of order 1, the last one returns the clean action.

    Args:
        denoiser: network at an integer diffusion step.
        x: the start, standard normal noise.
        timesteps: diffusion steps, descending, without the clean end (:func:`schedules.linspace_open`).
        schedule: the schedule of training.
        prediction: 'sample', 'epsilon' or 'v'.
        clip: bound of the absolute clean action, or None.
        order: 2, or 1, which is DDIM.

    Raises:
        PolicyError: the grid is not descending, or an option is unknown.
    """
    if order not in (1, 2):
        raise PolicyError(f"DPM-Solver++ of order {order} is not available. Available: 1, 2.")
    clean_before, increment_before = None, math.inf
    grid = descents(timesteps, schedule)
    for step, alpha_bar, after in grid[:-1]:
        clean, _ = clean_and_noise(denoiser(x, step), x, *_signal_and_noise(alpha_bar), prediction, clip)
        increment = _log_ratio(after) - _log_ratio(alpha_bar)
        slope = clean
        if order == 2 and clean_before is not None:
            slope = clean + increment / (2 * increment_before) * (clean - clean_before)
        x = math.sqrt((1 - after) / (1 - alpha_bar)) * x - math.sqrt(after) * math.expm1(-increment) * slope
        clean_before, increment_before = clean, increment
    step, alpha_bar, _ = grid[-1]
    return clean_and_noise(denoiser(x, step), x, *_signal_and_noise(alpha_bar), prediction, clip)[0]


def _signal_and_noise(alpha_bar: float) -> tuple[float, float]:
    """Returns alpha and sigma formed from their ratio in float32, as diffusers does.

    A noise prediction at the noisiest step is divided by a tiny alpha, which shows the rounding of sigma.
    """
    ratio = np.float32(math.sqrt((1.0 - alpha_bar) / alpha_bar))
    alpha = 1 / np.sqrt(ratio * ratio + np.float32(1))
    return float(alpha), float(ratio * alpha)


def _log_ratio(alpha_bar: float) -> float:
    """Returns lambda, the logarithm of signal over noise."""
    return 0.5 * (math.log(alpha_bar) - math.log1p(-alpha_bar))
