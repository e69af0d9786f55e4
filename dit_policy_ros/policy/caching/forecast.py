"""TaylorSeer in front of every sub-block of a family, for one chunk after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.caching.modules import cached
from dit_policy_ros.policy.caching.sub_block import SubBlock
from dit_policy_ros.policy.caching.taylorseer import TaylorCache, full_steps
from dit_policy_ros.policy.guide import Guide

MOST_STEPS = 1000


@dataclass(frozen=True)
class TaylorSeerOptions:
    """TaylorSeer in a ``policy.yaml``."""

    interval: int
    """One of so many steps is computed after the warm-up; 1 computes all."""
    warmup: int = 2
    """Leading steps that are all computed."""
    order: int = 1
    """Highest difference of the forecast; 0 repeats the last output."""

    def __post_init__(self) -> None:
        if self.interval < 1 or self.warmup < 1 or self.order < 0:
            raise PolicyError(
                f"A cache with interval {self.interval}, warm-up {self.warmup} and order {self.order} does not work; "
                "interval and warm-up are at least 1, order at least 0."
            )

    def caching(self, sub_blocks: Sequence[SubBlock]) -> Forecasts:
        """Returns what stands in front of these sub-blocks."""
        return Forecasts(self, sub_blocks)


class Forecasts:
    """Makes new caches for every chunk."""

    def __init__(self, options: TaylorSeerOptions, sub_blocks: Sequence[SubBlock]) -> None:
        self.options = options
        self.modules = [block.module for block in sub_blocks]

    @contextmanager
    def run(self, guide: Guide | None) -> Iterator[Guide]:
        """Routes the sub-blocks through new caches while one chunk is sampled.

        Yields:
            The guide to sample with, which also counts the steps.
        """
        c = self.options
        full = full_steps(MOST_STEPS, c.interval, c.warmup)
        caches = {module: TaylorCache(full, c.order, c.warmup - 1) for module in self.modules}
        with cached(caches) as counter:
            yield counter.within(guide)
