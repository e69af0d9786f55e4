"""Averaging what overlapping chunks say of the same instant.

A rule gives each of the predictions for one instant, oldest first, (N, A), its weight, (N,), summing to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from dit_policy_ros.actions.resample import resample_chunk
from dit_policy_ros.errors import PolicyError
from dit_policy_ros.types import ActionChunk

Rule = Callable[[np.ndarray], np.ndarray]


def temporal_weights(predictions: np.ndarray, decay: float = 0.01) -> np.ndarray:
    """Weights of ACT (Zhao et al., 2023): ``exp(-decay * i)``, i = 0 the oldest prediction, which weighs most.

    Args:
        predictions: (N, A), oldest first; missing ones leave no gap in i.
        decay: 0.01 in the official evaluation.
    """
    weights = np.exp(-decay * np.arange(len(predictions)))
    return weights / weights.sum()


def adaptive_weights(predictions: np.ndarray, alpha: float = 0.1) -> np.ndarray:
    """Weights of CogACT (Li et al., 2024): ``exp(alpha * cosine)`` between each prediction and the newest.

    Predictions of another mode are voted down instead of being averaged in.

    Args:
        predictions: (N, A), oldest first, all channels together.
        alpha: 0.1 in the official evaluation; 0 averages plainly.
    """
    newest = predictions[-1]
    norms = np.linalg.norm(predictions, axis=1) * np.linalg.norm(newest)
    weights = np.exp(alpha * (predictions @ newest) / (norms + 1e-7))
    return weights / weights.sum()


def without_zeros(predictions: np.ndarray) -> np.ndarray:
    """Returns the predictions none of whose channels is exactly 0.

    The official ACT loop marks empty places with zeros and so drops these; only to reproduce it.
    """
    return predictions[(predictions != 0).all(axis=1)]


def predictions_at(chunks: Sequence[ActionChunk], time_ns: int) -> np.ndarray:
    """Returns what the chunks that cover an instant say of it, in the given order, (N, A)."""
    covering = [chunk for chunk in chunks if chunk.start_ns <= time_ns <= chunk.end_ns]
    rows = [resample_chunk(chunk, np.array([time_ns]), "linear")[0] for chunk in covering]
    return np.array(rows).reshape(len(rows), len(chunks[0].names) if chunks else 0)


def ensembled(chunks: Sequence[ActionChunk], rule: Rule) -> ActionChunk:
    """Returns the newest chunk with every action averaged with what older chunks say of its instant.

    Between two actions of an older chunk its value is interpolated linearly. Committed actions stay as they are, and
    chunks of another epoch do not take part.

    Args:
        chunks: at least one, oldest first.
        rule: weights, such as :func:`temporal_weights`.

    Raises:
        PolicyError: no chunk, or chunks of different channels.
    """
    if not chunks:
        raise PolicyError("There is no chunk to average; give at least the newest one.")
    newest = chunks[-1]
    if any(chunk.names != newest.names for chunk in chunks):
        raise PolicyError("Chunks with different channels, or the same in another order, cannot be averaged.")
    peers = [chunk for chunk in chunks if chunk.epoch == newest.epoch]
    actions = newest.actions.astype(np.float64)
    for k, time_ns in enumerate(newest.times_ns.tolist()):
        if k >= newest.committed:
            predictions = predictions_at(peers, time_ns)
            actions[k] = rule(predictions) @ predictions
    return replace(newest, actions=actions)
