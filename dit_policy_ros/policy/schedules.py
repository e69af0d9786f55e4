"""Noise schedules and time grids. Plain Python numbers: a sampler never has to read a value back from a device.

Three kinds of time, one for each kind of sampler:

* diffusion steps (variance preserving): integers, ``train_steps - 1`` is the noisiest, visited in descending order;
* noise levels (EDM): standard deviations sigma, descending, 0 is clean;
* flow times: 0 is noise, 1 is the action, ascending.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.errors import PolicyError, one_of


@dataclass(frozen=True)
class NoiseSchedule:
    """A variance-preserving corruption: ``x = sqrt(abar) action + sqrt(1 - abar) noise``."""

    alphas_cumprod: tuple[float, ...]
    """abar of every diffusion step, strictly between 0 and 1, descending."""
    single_precision: bool = False
    """Whether the coefficients of an ancestral step are formed in float32, as diffusers forms them."""

    def __post_init__(self) -> None:
        if not self.alphas_cumprod or not all(0.0 < value < 1.0 for value in self.alphas_cumprod):
            raise PolicyError(
                "A noise schedule needs at least one step, each with a cumulative product between 0 and 1."
            )

    @property
    def steps(self) -> int:
        """Number of diffusion steps the network was trained with."""
        return len(self.alphas_cumprod)

    @property
    def betas(self) -> tuple[float, ...]:
        """Variance added by each step to the one below it."""
        below = (1.0, *self.alphas_cumprod[:-1])
        return tuple(1.0 - here / before for here, before in zip(self.alphas_cumprod, below, strict=True))

    def alpha_bar(self, step: int, final: float = 1.0) -> float:
        """Returns abar of a diffusion step, or ``final`` for a negative one.

        Raises:
            PolicyError: the schedule is shorter.
        """
        if step >= self.steps:
            raise PolicyError(f"Diffusion step {step} is outside the schedule; allowed are 0 to {self.steps - 1}.")
        return self.alphas_cumprod[step] if step >= 0 else final

    @classmethod
    def from_betas(cls, betas: Sequence[float], single_precision: bool = True) -> NoiseSchedule:
        """Makes a schedule from the variance of each step.

        Args:
            betas: variances, between 0 and 1.
            single_precision: hold variances and products in float32 as diffusers does. At the noisiest steps this
                changes abar by 1e-5 of its value, which a network sees amplified. False is the OpenAI diffusion
                code (CogACT, PAD): float64 throughout.
        """
        kept = 1.0 - np.asarray(betas, dtype=np.float32 if single_precision else np.float64)
        products = np.cumprod(kept.astype(np.float64)).astype(kept.dtype)
        return cls(tuple(products.tolist()), single_precision)


def squared_cosine(steps: int, cap: float = 0.999, single_precision: bool = True) -> NoiseSchedule:
    """Returns the squared-cosine schedule of "Improved Denoising Diffusion Probabilistic Models", offset 0.008.

    Args:
        steps: number of diffusion steps in training.
        cap: largest variance of one step.
        single_precision: see :meth:`NoiseSchedule.from_betas`.
    """

    def level(fraction: float) -> float:
        return math.cos((fraction + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1.0 - level((i + 1) / steps) / level(i / steps), cap) for i in range(steps)]
    return NoiseSchedule.from_betas(betas, single_precision)


def linear(steps: int, start: float = 1e-4, end: float = 0.02, single_precision: bool = True) -> NoiseSchedule:
    """Returns the schedule whose step variances grow linearly ("Denoising Diffusion Probabilistic Models")."""
    span = max(steps - 1, 1)
    return NoiseSchedule.from_betas([start + (end - start) * i / span for i in range(steps)], single_precision)


def scaled_linear(steps: int, start: float = 1e-4, end: float = 0.02, single_precision: bool = True) -> NoiseSchedule:
    """Returns the schedule whose step deviations grow linearly (latent diffusion models)."""
    span, low, high = max(steps - 1, 1), math.sqrt(start), math.sqrt(end)
    return NoiseSchedule.from_betas([(low + (high - low) * i / span) ** 2 for i in range(steps)], single_precision)


def named(name: str, steps: int, start: float = 1e-4, end: float = 0.02) -> NoiseSchedule:
    """Returns the schedule that diffusers calls by this name.

    Raises:
        PolicyError: unknown name.
    """
    if name == "squaredcos_cap_v2":
        return squared_cosine(steps)
    by_name = {"linear": linear, "scaled_linear": scaled_linear}
    if name not in by_name:
        raise PolicyError(one_of("Beta schedule", name, (*by_name, "squaredcos_cap_v2")))
    return by_name[name](steps, start, end)


def _check_steps(train_steps: int, steps: int) -> None:
    if not 1 <= steps <= train_steps:
        raise PolicyError(f"{steps} sampling steps do not fit the schedule; allowed are 1 to {train_steps}.")


def leading(train_steps: int, steps: int) -> tuple[int, ...]:
    """Returns ``i * (train_steps // steps)``, descending; the first is below the noisiest step."""
    _check_steps(train_steps, steps)
    stride = train_steps // steps
    return tuple(i * stride for i in reversed(range(steps)))


def trailing(train_steps: int, steps: int) -> tuple[int, ...]:
    """Returns ``round(train_steps - i * train_steps / steps) - 1``; the first is the noisiest step."""
    _check_steps(train_steps, steps)
    return tuple(round(train_steps - i * train_steps / steps) - 1 for i in range(steps))


def linspace(train_steps: int, steps: int) -> tuple[int, ...]:
    """Returns ``steps`` rounded, evenly spaced diffusion steps from the noisiest down to 0, both included."""
    _check_steps(train_steps, steps)
    if steps == 1:
        return (train_steps - 1,)
    return tuple(round(i * ((train_steps - 1) / (steps - 1))) for i in reversed(range(steps)))


def linspace_open(train_steps: int, steps: int) -> tuple[int, ...]:
    """Returns the first ``steps`` of ``steps + 1`` evenly spaced diffusion steps: the grid of DPM-Solver++ and RDT.

    Raises:
        PolicyError: not fewer steps than in training.
    """
    _check_steps(train_steps - 1, steps)
    return tuple(round(i * ((train_steps - 1) / steps)) for i in range(steps, 0, -1))


def strided(train_steps: int, steps: int) -> tuple[int, ...]:
    """Returns ``0, s, 2 s, ...`` descending for the smallest integer stride s that gives exactly ``steps`` of them.

    The grid of the OpenAI diffusion code and CogACT. A single step is number 50 there, however many were trained.

    Raises:
        PolicyError: no stride gives this count.
    """
    _check_steps(train_steps, steps)
    if steps == 1 and train_steps > 50:
        return (50,)
    for stride in range(1, train_steps):
        grid = range(0, train_steps, stride)
        if len(grid) == steps:
            return tuple(reversed(grid))
    single = {1} if train_steps > 50 else set()
    counts = sorted({len(range(0, train_steps, stride)) for stride in range(1, train_steps)} | single)
    allowed = ", ".join(map(str, counts))
    raise PolicyError(f"No integer stride gives {steps} of {train_steps} diffusion steps; allowed are {allowed}.")


def exponential_sigmas(steps: int, sigma_min: float, sigma_max: float) -> tuple[float, ...]:
    """Returns ``steps`` noise levels evenly spaced in the logarithm, from the largest to the smallest, then 0."""
    low, high = math.log(sigma_min), math.log(sigma_max)
    span = max(steps - 1, 1)
    return (*(math.exp(high + (low - high) * i / span) for i in range(steps)), 0.0)


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> tuple[float, ...]:
    """Returns the noise levels of "Elucidating the Design Space of Diffusion-Based Generative Models", then 0."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    span = max(steps - 1, 1)
    return (*((high + (low - high) * i / span) ** rho for i in range(steps)), 0.0)


def uniform_times(steps: int) -> tuple[float, ...]:
    """Returns ``0, 1/steps, ..., 1``: the ``steps + 1`` flow times of that many equal steps."""
    return tuple(i / steps for i in range(steps + 1))


def shifted_times(steps: int, shift: float = 1.0, train_steps: int = 1000) -> tuple[float, ...]:
    """Returns the ``steps + 1`` flow times of the flow-matching Euler scheduler of diffusers.

    Its noise levels are ``f(linspace(f(1), f(1 / train_steps), steps))`` and 0, with
    ``f(s) = shift s / (1 + (shift - 1) s)``: the shift acts twice. A flow time is 1 minus the noise level.
    """

    def shifted(level: float) -> float:
        return shift * level / (1 + (shift - 1) * level)

    high, low, span = shifted(1.0), shifted(1.0 / train_steps), max(steps - 1, 1)
    return (*(1.0 - shifted(high + (low - high) * i / span) for i in range(steps)), 1.0)
