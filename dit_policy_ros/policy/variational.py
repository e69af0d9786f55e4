"""The variational bound of a diffusion chain with learned variances, in bits per value.

Formulas of "Improved Denoising Diffusion Probabilistic Models" (Nichol and Dhariwal, 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dit_policy_ros.policy.schedules import NoiseSchedule

BIN = 1.0 / 255.0
"""Half the width of the bins that the clean values -1..1 are read in."""
EDGE = 0.999
"""Beyond it a value belongs to the first or last bin."""
SMALLEST = 1e-12


@dataclass(frozen=True)
class Chain:
    """Tables of a chain, (steps,) float64 each, in ascending order of the step."""

    alphas_cumprod: Tensor

    @classmethod
    def respaced(cls, schedule: NoiseSchedule, steps: Sequence[int]) -> Chain:
        """Keeps these diffusion steps; the variances follow from the cumulative products."""
        return cls(torch.tensor([schedule.alphas_cumprod[step] for step in sorted(steps)], dtype=torch.float64))

    @cached_property
    def below(self) -> Tensor:
        """Cumulative product of the step below."""
        return torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])

    @cached_property
    def betas(self) -> Tensor:
        """Variance that a step adds."""
        return 1 - self.alphas_cumprod / self.below

    @cached_property
    def posterior_log_variance(self) -> Tensor:
        """Of the step below given this one and the clean value; the first entry, minus infinity, is the second's."""
        variance = self.betas * (1 - self.below) / (1 - self.alphas_cumprod)
        return torch.cat([variance[1:2], variance[1:]]).log()

    @cached_property
    def posterior_of_clean(self) -> Tensor:
        """Factor of the clean value in the posterior mean."""
        return self.betas * self.below.sqrt() / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_of_noisy(self) -> Tensor:
        """Factor of the noisy value in the posterior mean."""
        return (1 - self.below) * (1 - self.betas).sqrt() / (1 - self.alphas_cumprod)

    def at(self, table: Tensor, steps: Tensor, like: Tensor) -> Tensor:
        """Returns the entries of (B,) steps, shaped to multiply a batch."""
        return table.to(like.device)[steps].to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))

    def bound(self, clean: Tensor, noisy: Tensor, steps: Tensor, noise: Tensor, values: Tensor) -> Tensor:
        """Returns one term of the bound for each sample, (B,) in bits; the mean is not differentiated.

        Args:
            clean: (B, ...) values -1..1; noisy is the same at (B,) ``steps``.
            noise: what the network predicts.
            values: its variance values, -1 (posterior) to 1 (forward step).
        """
        # The tables are cast last: 1 - abar has few digits in float32 near step 0.
        signal = self.at(self.alphas_cumprod.sqrt(), steps, noisy)
        deviation = self.at((1 - self.alphas_cumprod).sqrt(), steps, noisy)
        of_clean, of_noisy = (self.at(t, steps, noisy) for t in (self.posterior_of_clean, self.posterior_of_noisy))
        smallest = self.at(self.posterior_log_variance, steps, noisy)
        share = (values + 1) / 2
        log_variance = share * self.at(self.betas.log(), steps, noisy) + (1 - share) * smallest
        predicted = (noisy - deviation * noise.detach()) / signal
        mean = of_clean * predicted + of_noisy * noisy
        truth = of_clean * clean + of_noisy * noisy
        divergence = _divergence(truth, smallest, mean, log_variance)
        first = -_log_likelihood(clean, mean, log_variance / 2)
        bits = torch.where((steps == 0).reshape(-1, *[1] * (clean.ndim - 1)), first, divergence)
        return bits.flatten(1).mean(1) / math.log(2)


def _divergence(mean: Tensor, log_variance: Tensor, other: Tensor, other_log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of two Gaussians, per value, in nats."""
    ratio = log_variance - other_log_variance
    return 0.5 * (ratio.exp() - 1 - ratio + (mean - other).square() * (-other_log_variance).exp())


def _cumulative(x: Tensor) -> Tensor:
    """The tanh approximation of the normal distribution function that the official training code uses."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _log_likelihood(clean: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Logarithm of the Gaussian's mass in the bin around each clean value."""
    inverse = (-log_deviation).exp()
    upper, lower = (_cumulative(inverse * (clean - mean + side)) for side in (BIN, -BIN))
    mass = torch.where(clean < -EDGE, upper, torch.where(clean > EDGE, 1 - lower, upper - lower))
    return mass.clamp(min=SMALLEST).log()
