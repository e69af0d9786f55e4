"""Tracking-cost guidance (UMI-on-Air, 2025): a chunk is bent towards what the robot's controller can follow.

The sample itself is moved before the network sees it, and the step starts from the moved sample; no wrapper around
a denoiser can express that, so this is a DDIM loop of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dit_policy_ros.policy.samplers.ddim import Denoiser, ddim_step
from dit_policy_ros.policy.samplers.prediction import descents, signal_and_noise
from dit_policy_ros.policy.schedules import NoiseSchedule

Gradient = Callable[[Tensor], Tensor]
"""(B, H, A) noisy chunk to the gradient of the tracking cost, same shape."""


def clipped(gradient: Tensor, groups: Sequence[tuple[slice, float]]) -> Tensor:
    """Returns the gradient with each group of channels scaled down, per action, to a largest norm.

    Args:
        gradient: (..., A).
        groups: channels and their limit; the authors' are 0.05 for a position and 0.005 for a 6-D rotation.
    """
    result = gradient.clone()
    for channels, limit in groups:
        norm = gradient[..., channels].norm(dim=-1, keepdim=True)
        result[..., channels] *= (limit / (norm + 1e-8)).clamp(max=1.0)
    return result


def rate_gradient(chunk: Tensor, start: Tensor, limit: Tensor) -> Tensor:
    """Gradient of ``sum relu(|q[k] - q[k-1]| - limit)^2``, the cost of moving faster than joints can.

    Args:
        chunk: (B, H, A) joint targets.
        start: (B, A) joint positions before the first one.
        limit: (A,) or a number, largest change within one step, in the chunk's unit.
    """
    change = torch.diff(torch.cat([start[:, None], chunk], 1), dim=1)
    slope = 2 * change.sign() * (change.abs() - limit).clamp(min=0)
    following = torch.cat([slope[:, 1:], torch.zeros_like(slope[:, :1])], 1)
    return slope - following


@torch.no_grad()
def tracking_ddim(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    schedule: NoiseSchedule,
    gradient: Gradient,
    scale: float,
    prediction: str = "epsilon",
    clip: float | None = None,
    stride: int | None = None,
    renoise: Sequence[Tensor] | Tensor = (),
    repeats: int = 1,
) -> Tensor:
    """DDIM whose sample is moved by ``-scale * abar * gradient`` before every network call.

    Args:
        denoiser: network at an integer diffusion step.
        x: the start, standard normal noise.
        timesteps: diffusion steps, descending.
        schedule: the schedule of training.
        gradient: clipped gradient of the cost at a noisy sample.
        scale: strength; 1.5 in the paper. 0 never asks for the gradient.
        prediction: 'epsilon', 'sample' or 'v'.
        clip: bound of the absolute clean action, or None.
        stride: see :func:`ddim`.
        renoise: draws for the repeats in order of use; where they run out they are made.
        repeats: passes over every diffusion step. After each but the last the sample is noised again as if it
            were clean, as the authors do, so that it is noisier than its step says.
    """
    draws = iter(renoise)
    for step, alpha_bar, after in descents(timesteps, schedule, stride):
        alpha, sigma = signal_and_noise(alpha_bar)
        for left in reversed(range(repeats)):
            moved = x - scale * alpha_bar * gradient(x) if scale else x
            x = ddim_step(moved, denoiser(moved, step), alpha_bar, after, prediction, clip)
            if left:
                draw = next(draws, None)
                x = alpha * x + sigma * (torch.randn_like(x) if draw is None else draw)
    return x


@torch.no_grad()
def tracking_refinement(
    denoiser: Denoiser,
    sample: Tensor,
    step: int,
    schedule: NoiseSchedule,
    gradient: Gradient,
    scale: float,
    noises: Sequence[Tensor] | Tensor,
    prediction: str = "epsilon",
    clip: float | None = None,
) -> Tensor:
    """Moves a finished chunk down the cost and lets the network repair it, once for every noise.

    Args:
        denoiser: network at an integer diffusion step.
        sample: a finished chunk.
        step: smallest non-zero diffusion step of the sampler; the network sees this one.
        schedule: the schedule of training.
        gradient: clipped gradient of the cost.
        scale: strength.
        noises: standard normal draws; a quarter of each is added at a third of ``step``.
        prediction: 'epsilon', 'sample' or 'v'.
        clip: bound of the absolute clean action, or None.
    """
    alpha, sigma = signal_and_noise(schedule.alpha_bar(step // 3))
    for noise in noises:
        moved = alpha * (sample - scale * gradient(sample)) + sigma * noise / 4
        sample = ddim_step(moved, denoiser(moved, step), schedule.alpha_bar(step), 1.0, prediction, clip)
    return sample
