"""Block-wise Adaptive Caching in front of every sub-block of a family.

The first chunk is computed whole: ``FamilyPolicy.settle`` samples it as the directory is loaded. From what its
sub-blocks gave, the published scheduler settles at which steps each of them is computed in all chunks after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.caching.block_schedule import bubbled, caching_error, cosine_similarity, update_steps
from dit_policy_ros.policy.caching.modules import StepCounter, cached
from dit_policy_ros.policy.caching.sub_block import FEED_FORWARDS, SubBlock
from dit_policy_ros.policy.guide import Guide


@dataclass(frozen=True)
class BlockWiseOptions:
    """BAC in a ``policy.yaml``."""

    updates: int
    """Steps of a run at which a sub-block is computed; the authors take 5 to 20 of 100. As many as there are
    computes everything."""
    selected: int = 5
    """Sub-blocks with the largest caching error, which also take over the steps of the feed-forwards below them."""

    def __post_init__(self) -> None:
        if self.updates < 1 or self.selected < 0:
            raise PolicyError(
                f"A cache with {self.updates} updates and {self.selected} selected sub-blocks does not work; "
                "updates are at least 1, selected at least 0."
            )

    def caching(self, sub_blocks: Sequence[SubBlock]) -> BlockWise:
        """Returns what stands in front of these sub-blocks."""
        return BlockWise(self, sub_blocks)


class BlockWise:
    """Records the first chunk, and repeats outputs in the ones after it."""

    def __init__(self, options: BlockWiseOptions, sub_blocks: Sequence[SubBlock]) -> None:
        self.options = options
        self.sub_blocks = list(sub_blocks)
        self.times: tuple[Any, ...] = ()
        """Diffusion steps, noise levels or flow times of the recorded run, in its order."""
        self.update: Mapping[nn.Module, tuple[bool, ...]] = {}
        """At which of them each sub-block is computed; empty before the first chunk."""

    @contextmanager
    def run(self, guide: Guide | None) -> Iterator[Guide]:
        """Routes the sub-blocks through recorders or caches while one chunk is sampled.

        Yields:
            The guide to sample with, which also notes the steps.
        """
        counter = StepCounter()
        if self.update:
            caches = {module: _Stored(self._due(module), counter) for module in self.update}
        else:
            caches = {block.module: _Recorder() for block in self.sub_blocks}
        with cached(caches, counter):
            yield counter.within(guide)
        if not self.update and counter.times:
            features = [caches[block.module].features() for block in self.sub_blocks]
            rows = schedule(self.sub_blocks, features, self.options)
            self.times = tuple(counter.times)
            self.update = {block.module: row for block, row in zip(self.sub_blocks, rows, strict=True)}

    def _due(self, module: nn.Module) -> frozenset[Any]:
        return frozenset(time for time, due in zip(self.times, self.update[module], strict=True) if due)


def schedule(
    sub_blocks: Sequence[SubBlock], features: Sequence[np.ndarray], options: BlockWiseOptions
) -> list[tuple[bool, ...]]:
    """Returns at which steps each sub-block is computed, from its outputs (K, D)."""
    steps = len(features[0])
    updates = min(options.updates, steps)
    layers = sorted({block.layer for block in sub_blocks}, key=lambda layer: (len(layer), layer))
    kinds = sorted({block.kind for block in sub_blocks}, key=lambda kind: kind in FEED_FORWARDS)  # those are last
    places = [(layers.index(block.layer), kinds.index(block.kind)) for block in sub_blocks]
    update = np.zeros((len(layers), len(kinds), steps), dtype=bool)
    for place, outputs in zip(places, features, strict=True):
        update[place][list(update_steps(cosine_similarity(outputs), updates))] = True
    if kinds[-1] in FEED_FORWARDS:
        errors = [caching_error(outputs, paper=False) for outputs in features]
        worst = np.argsort(errors, kind="stable")[::-1][: options.selected]
        update = bubbled(update, [places[i] for i in worst], feed_forward=-1)
    return [tuple(update[place].tolist()) for place in places]


class _Recorder:
    """Computes every step and keeps it."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def __call__(self, step: int, compute: Callable[[], Tensor]) -> Tensor:
        output = compute()
        self._rows.append(output.detach().flatten().float().cpu())
        return output

    def features(self) -> np.ndarray:
        """(K, D)."""
        return torch.stack(self._rows).numpy()


class _Stored:
    """Computes at its times, and repeats the last output in between.

    A guide may keep some steps from the network, so that steps are known by their time and not by their number.
    """

    def __init__(self, due: frozenset[Any], counter: StepCounter) -> None:
        self._due = due
        self._counter = counter
        self._output: Tensor | None = None

    def __call__(self, step: int, compute: Callable[[], Tensor]) -> Tensor:
        if self._output is None or self._counter.times[step] in self._due:
            self._output = compute()
        return self._output
