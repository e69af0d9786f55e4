"""Denoising diffusion implicit models with eta 0 (Song et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dit_policy_ros.policy.samplers.prediction import clean_and_noise, descents, signal_and_noise
from dit_policy_ros.policy.schedules import NoiseSchedule

Denoiser = Callable[[Tensor, int], Tensor]
"""``denoiser(x, step)`` is the network's prediction at an integer diffusion step, shape of x."""


def ddim_step(
    x: Tensor,
    output: Tensor,
    alpha_bar: float,
    alpha_bar_after: float,
    prediction: str = "epsilon",
    clip: float | None = None,
    recompute_noise: bool = False,
) -> Tensor:
    """Returns the sample one step down; the arguments are those of :func:`ddim`."""
    alpha, sigma = signal_and_noise(alpha_bar)
    clean, noise = clean_and_noise(output, x, alpha, sigma, prediction, clip)
    if recompute_noise:
        noise = (x - alpha * clean) / sigma
    alpha_after, sigma_after = signal_and_noise(alpha_bar_after)
    return alpha_after * clean + sigma_after * noise


@torch.no_grad()
def ddim(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    schedule: NoiseSchedule,
    prediction: str = "epsilon",
    clip: float | None = None,
    recompute_noise: bool = False,
    stride: int | None = None,
    final_alpha_bar: float = 1.0,
) -> Tensor:
    """Samples deterministically.

    Args:
        denoiser: network at an integer diffusion step.
        x: the start, standard normal noise.
        timesteps: diffusion steps, descending.
        schedule: the schedule of training.
        prediction: 'epsilon', 'sample' or 'v'.
        clip: bound of the absolute clean action, or None.
        recompute_noise: take the noise from the clipped clean action (the OpenAI diffusion code) instead of from
            the network (diffusers). Without clipping the two are the same.
        stride: how far down a step goes, in diffusion steps; None goes to the next entry of ``timesteps``.
        final_alpha_bar: abar below step 0; diffusers' ``set_alpha_to_one = False`` is that of step 0.

    Raises:
        PolicyError: the grid is not descending or the prediction is unknown.
    """
    for step, alpha_bar, after in descents(timesteps, schedule, stride, final_alpha_bar):
        x = ddim_step(x, denoiser(x, step), alpha_bar, after, prediction, clip, recompute_noise)
    return x
