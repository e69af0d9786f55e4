"""TaylorSeer (Liu et al., 2025): features of skipped steps are forecast from finite differences of full ones.

In the authors' models the feature is the output of attention or of the feed-forward block before its adaptive gate;
the gate is computed in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from dit_policy_ros.errors import PolicyError, one_of

RULES = ("restart", "fixed")


def full_steps(
    steps: int, interval: int, warmup: int, rule: str = "restart", cooldown_from: int | None = None
) -> tuple[bool, ...]:
    """Returns which steps of a run are computed, in order of execution.

    Args:
        steps: steps of the run.
        interval: one of so many steps is computed after the warm-up.
        warmup: leading steps that are all computed.
        rule: 'restart' counts from the last computed step (the authors); 'fixed' counts from the step after the
            first skipped one (diffusers), so that the first gap is one step long.
        cooldown_from: first of the trailing steps that are all computed, or None.

    Raises:
        PolicyError: unknown rule, or a count below 1.
    """
    if rule not in RULES:
        raise PolicyError(one_of("Rule", rule, RULES))
    if interval < 1 or warmup < 1:
        raise PolicyError(f"Interval {interval} and warm-up {warmup} must both be at least 1.")
    full: list[bool] = []
    last = 0
    for step in range(steps):
        due = step - last == interval if rule == "restart" else (step - warmup - 1) % interval == 0
        full.append(step < warmup or due or (cooldown_from is not None and step >= cooldown_from))
        last = step if full[-1] else last
    return tuple(full)


class TaylorCache:
    """Computes one feature in full steps and forecasts it in the others. Serves one sampling run.

    Args:
        full: which steps are computed, from :func:`full_steps`.
        order: highest difference kept; 0 repeats the last feature.
        differences_from: first step whose feature is compared with the one before; ``warmup - 1`` for the authors.
    """

    def __init__(self, full: Sequence[bool], order: int = 1, differences_from: int = 0) -> None:
        self.full = tuple(full)
        self.order = order
        self.differences_from = differences_from
        self.factors: list[Tensor] = []
        """Feature of the last full step, and its differences of order 1, 2, ..."""
        self._last_step: int | None = None

    def __call__(self, step: int, compute: Callable[[], Tensor]) -> Tensor:
        """Returns the feature of a step, computed or forecast.

        Raises:
            PolicyError: the run has more steps than the cache was made for.
        """
        if step >= len(self.full):
            raise PolicyError(f"Step {step} of a run that the cache expects to have {len(self.full)} steps.")
        if self.full[step] or not self.factors:
            self._update(step, compute())
            return self.factors[0]
        distance, scale = step - self._last_step, 1.0
        forecast = self.factors[0]
        for i, factor in enumerate(self.factors[1:], start=1):
            scale *= distance / i
            forecast = forecast + scale * factor
        return forecast

    def _update(self, step: int, feature: Tensor) -> None:
        factors = [feature]
        if step >= self.differences_from and self._last_step is not None:
            gap = step - self._last_step
            for old in self.factors[: self.order]:
                factors.append((factors[-1] - old) / gap)
        self.factors, self._last_step = factors, step
