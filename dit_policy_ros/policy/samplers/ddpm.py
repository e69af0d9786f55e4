"""Ancestral sampling of denoising diffusion probabilistic models (Ho et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.samplers.prediction import clean_and_noise, descents, signal_and_noise
from dit_policy_ros.policy.schedules import NoiseSchedule

VARIANCES = ("small", "large", "learned")
_SMALLEST = 1e-20  # keeps the logarithm of the posterior variance finite, as the published code does


@dataclass(frozen=True)
class Posterior:
    """One ancestral step: ``mean = of_clean * clean + of_x * x``, and the bounds of its variance."""

    of_clean: float
    of_x: float
    small: float
    """Variance of the posterior given the clean action."""
    large: float
    """Variance of the forward step."""


def posterior(alpha_bar: float, alpha_bar_after: float, single_precision: bool = False) -> Posterior:
    """Returns the coefficients of the step from one level to a lower one.

    Args:
        alpha_bar: abar of the level now.
        alpha_bar_after: abar of the level after.
        single_precision: form them in float32. Near the clean end ``1 - abar / abar_after`` then loses digits, and
            networks sampled by diffusers were judged with what is left.
    """
    number = np.float32 if single_precision else np.float64
    here, after, one = number(alpha_bar), number(alpha_bar_after), number(1)
    kept = here / after
    large = one - kept
    return Posterior(
        of_clean=float(np.sqrt(after) * large / (one - here)),
        of_x=float(np.sqrt(kept) * (one - after) / (one - here)),
        small=float(max((one - after) / (one - here) * large, number(_SMALLEST))),
        large=float(large),
    )


def _deviation(step: Posterior, variance: str, learned: Tensor | None) -> float | Tensor:
    if variance == "small":
        return math.sqrt(step.small)
    if variance == "large":
        return math.sqrt(step.large)
    if variance != "learned":
        raise PolicyError(one_of("Variance", variance, VARIANCES))
    if learned is None:
        raise PolicyError("A learned variance needs a denoiser that returns (prediction, variance values).")
    share = (learned + 1) / 2
    return torch.exp(0.5 * (share * math.log(step.large) + (1 - share) * math.log(step.small)))


def ddpm_step(
    x: Tensor,
    output: Tensor | tuple[Tensor, Tensor],
    alpha_bar: float,
    alpha_bar_after: float,
    prediction: str = "epsilon",
    clip: float | None = None,
    variance: str = "small",
    noise: Tensor | None = None,
    single_precision: bool = False,
) -> Tensor:
    """Returns the sample one step down; the arguments are those of :func:`ddpm`, ``noise`` None adds none."""
    output, learned = output if isinstance(output, tuple) else (output, None)
    clean, _ = clean_and_noise(output, x, *signal_and_noise(alpha_bar), prediction, clip)
    step = posterior(alpha_bar, alpha_bar_after, single_precision)
    mean = step.of_clean * clean + step.of_x * x
    return mean if noise is None else mean + _deviation(step, variance, learned) * noise


def _noises(
    x: Tensor, step_noise: Sequence[Tensor] | Tensor | None, generator: torch.Generator | None
) -> Iterator[Tensor]:
    if step_noise is not None:
        yield from step_noise
        raise PolicyError(f"The sampler needs more than the {len(step_noise)} noise draws it was given.")
    while True:
        yield torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


@torch.no_grad()
def ddpm(
    denoiser: Callable[[Tensor, int], Tensor | tuple[Tensor, Tensor]],
    x: Tensor,
    timesteps: Sequence[int],
    schedule: NoiseSchedule,
    prediction: str = "epsilon",
    clip: float | None = None,
    variance: str = "small",
    stride: int | None = None,
    step_noise: Sequence[Tensor] | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Samples with fresh noise in every step but the one at diffusion step 0.

    Args:
        denoiser: network at an integer diffusion step; with a learned variance it returns (prediction, values).
        x: the start, standard normal noise.
        timesteps: diffusion steps, descending; a coarse grid gives the respaced process.
        schedule: the schedule of training.
        prediction: 'epsilon', 'sample' or 'v'.
        clip: bound of the absolute clean action, or None.
        variance: 'small' (that of the posterior), 'large' (that of the forward step), or 'learned': in the
            logarithm between both, values -1 to 1.
        stride: how far down a step goes, in diffusion steps; None goes to the next entry of ``timesteps``. With 1
            a coarse grid only skips network calls (diffusers 0.11, warm starts).
        step_noise: the draws in order of use, (draws, *x.shape), for every step above 0; None draws them.
        generator: source of the draws.

    Raises:
        PolicyError: the grid is not descending, an option is unknown, or the draws run out.
    """
    noises = _noises(x, step_noise, generator)
    for step, alpha_bar, after in descents(timesteps, schedule, stride):
        noise = next(noises) if step > 0 else None
        x = ddpm_step(
            x, denoiser(x, step), alpha_bar, after, prediction, clip, variance, noise, schedule.single_precision
        )
    return x
