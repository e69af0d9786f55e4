"""Statistics of success: intervals for one policy, an exact paired test for two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TypeVar

import numpy as np
from scipy import stats

from dit_policy_ros.data.quantiles import quantiles, without_nan
from dit_policy_ros.errors import ConfigError

Episode = TypeVar("Episode")


@dataclass(frozen=True)
class Interval:
    """A confidence interval, of a rate 0..1 or of another figure."""

    lower: float
    upper: float


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Returns Wilson's score interval (1927): close to the stated confidence on average, also near 0 and 1.

    Raises:
        ConfigError: not 0 <= successes <= trials with at least one trial, or a confidence outside (0, 1).
    """
    _check(successes, trials, confidence)
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    # The bounds are exact there, which rounding spoils.
    lower = 0.0 if successes == 0 else centre - half
    upper = 1.0 if successes == trials else centre + half
    return Interval(lower, upper)


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Returns the exact interval of Clopper and Pearson (1934): never below the stated confidence.

    Raises:
        ConfigError: as ``wilson``.
    """
    _check(successes, trials, confidence)
    tail = (1 - confidence) / 2
    failures = trials - successes
    lower = 0.0 if successes == 0 else float(stats.beta.ppf(tail, successes, failures + 1))
    upper = 1.0 if failures == 0 else float(stats.beta.isf(tail, successes + 1, failures))
    return Interval(lower, upper)


@dataclass(frozen=True)
class PairedComparison:
    """Two policies on the same seeds."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float
    """Two-sided; how often a difference this uneven would come from two equal policies."""


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> PairedComparison:
    """Compares two policies by McNemar's exact test (1947): only seeds on which they differ count.

    Args:
        first: outcomes of one policy.
        second: outcomes of the other on the same seeds in the same order.

    Raises:
        ConfigError: the numbers of outcomes differ.
    """
    if len(first) != len(second):
        raise ConfigError(f"{len(first)} outcomes cannot be paired with {len(second)}; run both on the same seeds.")
    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((one & ~other).sum()), int((~one & other).sum())
    uneven = only_first + only_second
    p_value = float(stats.binomtest(only_first, uneven).pvalue) if uneven else 1.0
    return PairedComparison(int((one & other).sum()), only_first, only_second, int((~one & ~other).sum()), p_value)


def bootstrap(
    episodes: Sequence[Episode],
    figure: Callable[[Sequence[Episode]], float],
    resamples: int = 200,
    confidence: float = 0.95,
) -> Interval:
    """Returns the percentile bootstrap interval (Efron, 1979) of a figure of whole episodes; NaN without any.

    The draws are always the same.
    """
    if not episodes:
        return Interval(float("nan"), float("nan"))
    generator = np.random.default_rng(0)
    draws = generator.integers(0, len(episodes), (resamples, len(episodes)))
    values = [figure([episodes[k] for k in draw]) for draw in draws]
    tail = 50.0 * (1.0 - confidence)
    lower, upper = np.percentile(values, [tail, 100.0 - tail])
    return Interval(float(lower), float(upper))


def percentiles(values: np.ndarray, at: Sequence[float] = (50, 95, 99, 100)) -> dict[str, float]:
    """Returns the percentiles of what is known (not NaN) by name, such as 'p95'; empty where nothing is known."""
    known = without_nan(values)
    if not len(known):
        return {}
    found = quantiles(known, [fraction / 100 for fraction in at])
    return {f"p{fraction:g}": value for fraction, value in zip(at, found, strict=True)}


def _check(successes: int, trials: int, confidence: float) -> None:
    if not (trials >= 1 and 0 <= successes <= trials):
        raise ConfigError(f"{successes} successes of {trials} trials is impossible; give 0 <= successes <= trials.")
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"The confidence {confidence} is impossible; give a number between 0 and 1, such as 0.95.")
