"""Block-wise Adaptive Caching, offline half: at which steps each sub-block is computed, from recorded features.

The paper's formulas and the published scheduler differ; both are here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dit_policy_ros.errors import PolicyError

FEED_FORWARD = 2
"""Index of the feed-forward block among self-attention, cross-attention, feed-forward."""


def cosine_similarity(features: np.ndarray) -> np.ndarray:
    """Returns the cosine between all steps of one sub-block's features (K, D), (K, K)."""
    features = features.astype(np.float64)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return unit @ unit.T


def caching_error(features: np.ndarray, paper: bool = True) -> float:
    """Returns how much a sub-block changes over a run, from its features (K, D).

    The paper sums the L1 distance over all ordered pairs and divides by K^2; the published code takes the mean
    absolute difference over the pairs once.
    """
    features = features.astype(np.float64)
    steps, width = features.shape
    distance = sum(float(np.abs(features[k + 1 :] - features[k]).sum()) for k in range(steps))  # every pair once
    return 2 * distance / steps**2 if paper else distance / max(steps * (steps - 1) // 2 * width, 1)


def update_steps(similarity: np.ndarray, count: int, maximise: bool = True) -> tuple[int, ...]:
    """Returns the best ``count`` update steps, 0 among them: the published scheduler.

    The steps cut a run into segments; a segment [a, b] is worth ``sum(similarity[a, a..b])``.

    Args:
        similarity: (K, K) between steps, or distances.
        count: number of update steps.
        maximise: for similarities; minimise distances.

    Raises:
        PolicyError: more update steps than steps.
    """
    steps = len(similarity)
    _check_count(count, steps)
    sign = 1.0 if maximise else -1.0
    worth = sign * np.cumsum(np.triu(similarity).astype(np.float64), axis=1)
    # best[m][a]: worth of the steps from a on, when a is an update step and m more follow it.
    best = worth[:, -1].copy()
    choices: list[np.ndarray] = []
    for more in range(1, count):
        following = np.full(steps, -np.inf)
        choice = np.zeros(steps, dtype=np.int64)
        for a in range(steps - more):
            options = worth[a, a : steps - more] + best[a + 1 : steps - more + 1]
            choice[a] = a + 1 + int(np.argmax(options))
            following[a] = options.max()
        best = following
        choices.append(choice)
    chosen = [0]
    for choice in reversed(choices):
        chosen.append(int(choice[chosen[-1]]))
    return tuple(chosen)


def segments_worth(similarity: np.ndarray, chosen: Sequence[int]) -> float:
    """Returns the sum that :func:`update_steps` makes best."""
    ends = (*chosen[1:], len(similarity))
    return float(sum(similarity[a, a:end].sum(dtype=np.float64) for a, end in zip(chosen, ends, strict=True)))


def update_steps_paper(adjacent: np.ndarray, count: int) -> tuple[int, ...]:
    """Returns the best update steps by the paper: step 0 and those that resemble their predecessor least.

    Args:
        adjacent: (K - 1,) cosine between steps k and k - 1, for k = 1, 2, ...
        count: number of update steps.

    Raises:
        PolicyError: more update steps than steps.
    """
    _check_count(count, len(adjacent) + 1)
    return (0, *sorted(int(k) + 1 for k in np.argsort(adjacent, kind="stable")[: count - 1]))


def bubbled(update: np.ndarray, selected: Sequence[tuple[int, int]], feed_forward: int = FEED_FORWARD) -> np.ndarray:
    """Returns the update steps after the published union.

    From shallow to deep, each selected sub-block takes over the steps of every feed-forward block in its own and in
    deeper layers. With fewer than two selected nothing happens.

    Args:
        update: (layers, kinds, K) bool.
        selected: (layer, sub-block) pairs, the ones with the largest caching error.
        feed_forward: which kind the feed-forward block is.
    """
    result = update.copy()
    if len(selected) >= 2:
        for layer, block in sorted(selected):
            result[layer, block] |= result[layer:, feed_forward].any(axis=0)
    return result


def bubbled_paper(
    update: np.ndarray, error: np.ndarray, count: int, all_downstream: bool = False
) -> tuple[tuple[int, ...], np.ndarray]:
    """Returns the selected feed-forward blocks and the update steps after the paper's union.

    Args:
        update: (layers, K) bool, feed-forward blocks only.
        error: (layers,) caching error; the ``count`` largest are selected.
        count: number of selected blocks.
        all_downstream: a selected block takes over the steps of every deeper block, not only of the selected ones.
            The paper's wording allows both.
    """
    selected = tuple(sorted(int(i) for i in np.argsort(-error, kind="stable")[:count]))
    result = update.copy()
    for layer in selected:
        deeper = range(layer + 1, len(update)) if all_downstream else [other for other in selected if other > layer]
        for other in deeper:
            result[layer] |= update[other]
    return selected, result


def _check_count(count: int, steps: int) -> None:
    if not 1 <= count <= steps:
        raise PolicyError(f"{count} update steps asked of a run of {steps}; allowed are 1 to {steps}.")
