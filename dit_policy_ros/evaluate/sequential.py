"""A sequential test of two policies on common seeds: it may be looked at after every pair, and stopped.

Robot evaluations need such a rule because they are watched: a fixed-sample test that is looked at after every episode
and stopped when it turns significant errs far more often than it says ("A Careful Examination of Large Behavior Models
for Multitask Dexterous Manipulation", 2025, and its test STEP, "Is Your Imitation Learning Policy Better than Mine?",
2025). Ours differs from STEP in that it is paired: only seeds on which the two policies differ say anything, and under
equal policies each of them goes either way with probability 1/2. The evidence is the likelihood ratio of a uniform
mixture over that probability against 1/2. Ville's inequality bounds how often it ever exceeds 1/alpha; with a largest
number of pairs stated in advance a lower threshold has the same error, and it is computed exactly here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import lgamma, log

import numpy as np

from dit_policy_ros.errors import ConfigError

CONTINUE, FIRST, SECOND, NONE = "continue", "first is better", "second is better", "no difference shown"
VERDICTS = (CONTINUE, FIRST, SECOND, NONE)


@dataclass(frozen=True)
class SequentialResult:
    """What the rule says of the pairs so far."""

    verdict: str
    """One of ``VERDICTS``."""
    stopped_after: int | None
    """Pairs at which it stopped; None while it goes on."""
    evidence: np.ndarray
    """(pairs looked at,) natural logarithm of the likelihood ratio after each."""
    threshold: float
    """Of the evidence."""
    alpha: float
    """How often it finds a difference between equal policies, at most."""
    most_pairs: int
    """Stated in advance."""


def log_evidence(wins: int, losses: int) -> float:
    """Returns the logarithm of the mixture likelihood ratio after so many pairs that went either way."""
    return lgamma(wins + 1) + lgamma(losses + 1) - lgamma(wins + losses + 2) + (wins + losses) * log(2.0)


@lru_cache(maxsize=64)
def threshold(most_pairs: int, alpha: float) -> float:
    """Returns the lowest threshold that equal policies reach with probability ``alpha`` or less.

    Raises:
        ConfigError: no pairs, or an alpha outside (0, 1).
    """
    if most_pairs < 1 or not 0.0 < alpha < 1.0:
        raise ConfigError(f"A test of {most_pairs} pairs at {alpha:g} is impossible; give pairs, and 0 < alpha < 1.")
    low, high = 0.0, -log(alpha)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if crossing_probability(most_pairs, middle) <= alpha else (middle, high)
    return high


def crossing_probability(most_pairs: int, level: float, share: float = 0.5) -> float:
    """Returns how often the evidence reaches ``level`` within so many pairs that each go to the first with ``share``.

    Exact: a walk over the numbers of wins, in which what has crossed does not come back.
    """
    alive = np.array([1.0])
    crossed = 0.0
    for pairs in range(1, most_pairs + 1):
        wins = np.zeros(pairs + 1)
        wins[1:] += share * alive
        wins[:-1] += (1.0 - share) * alive
        over = np.array([log_evidence(w, pairs - w) for w in range(pairs + 1)]) >= level - 1e-12
        crossed += float(wins[over].sum())
        alive = np.where(over, 0.0, wins)
    return crossed


def sequential_test(
    first: Sequence[bool], second: Sequence[bool], most_pairs: int, alpha: float = 0.05
) -> SequentialResult:
    """Applies the rule to outcomes in the order in which they came.

    Args:
        first: outcomes of one policy; second: of the other, on the same seeds in the same order.
        most_pairs: the largest number of pairs, stated in advance; later ones are not looked at.
        alpha: two-sided.

    Raises:
        ConfigError: the numbers of outcomes differ, or see ``threshold``.
    """
    if len(first) != len(second):
        raise ConfigError(f"{len(first)} outcomes cannot be paired with {len(second)}; run both on the same seeds.")
    level = threshold(most_pairs, alpha)
    wins = losses = 0
    evidence: list[float] = []
    verdict = CONTINUE
    for one, other in list(zip(first, second, strict=True))[:most_pairs]:
        wins, losses = wins + (one and not other), losses + (other and not one)
        evidence.append(log_evidence(wins, losses))
        if evidence[-1] >= level - 1e-12:
            verdict = FIRST if wins > losses else SECOND
            break
    if verdict == CONTINUE and len(evidence) == most_pairs:
        verdict = NONE
    stopped = None if verdict == CONTINUE else len(evidence)
    return SequentialResult(verdict, stopped, np.array(evidence), level, alpha, most_pairs)
