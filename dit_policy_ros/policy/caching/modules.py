"""Puts caches around modules of any network for one sampling run, without touching the network's code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from dit_policy_ros.policy.guide import Guide, guided

StepCache = Callable[[int, Callable[[], Tensor]], Tensor]
"""``cache(step, compute)``: a :class:`TaylorCache` or :class:`BlockCache`."""


class StepCounter:
    """Counts the calls of a denoiser and notes their times."""

    def __init__(self) -> None:
        self.times: list[Any] = []

    @property
    def step(self) -> int:
        """Number of the call in progress; -1 before the first."""
        return len(self.times) - 1

    def wrap(self, network: Callable[[Tensor, Any], Tensor]) -> Callable[[Tensor, Any], Tensor]:
        """Returns ``network`` with every call counted."""

        def counted(x: Tensor, time: Any) -> Tensor:
            self.times.append(time)
            return network(x, time)

        return counted

    def within(self, guide: Guide | None) -> Guide:
        """Returns a guide that counts what the given one asks of the network."""
        return lambda network: guided(self.wrap(network), guide)


@contextmanager
def cached(caches: Mapping[nn.Module, StepCache], counter: StepCounter | None = None) -> Iterator[StepCounter]:
    """Routes the modules through their caches; each must return one tensor and be called once a step.

    Classifier-free guidance calls a network twice a step: put both passes in one batch, or cache one network only.

    Yields:
        The counter whose ``wrap`` goes around the denoiser that the sampler calls.
    """
    counter = StepCounter() if counter is None else counter
    try:
        for module, cache in caches.items():
            module.forward = _routed(module.forward, cache, counter)
        yield counter
    finally:
        for module in caches:
            module.__dict__.pop("forward", None)


def _routed(forward: Callable[..., Tensor], cache: StepCache, counter: StepCounter) -> Callable[..., Tensor]:
    def routed(*arguments: Any, **named: Any) -> Tensor:
        return cache(counter.step, lambda: forward(*arguments, **named))

    return routed
