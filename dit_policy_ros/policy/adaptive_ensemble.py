"""The adaptive action ensemble of "CogACT: A Foundational Vision-Language-Action Model" (Li et al., 2024)."""

from __future__ import annotations

from collections import deque

import numpy as np

from dit_policy_ros.errors import PolicyError

_EPS = 1e-7  # added to the product of the norms, as the official implementation does


class AdaptiveEnsemble:
    """Averages what the last chunks say of the present, weighted by how much they agree with the newest one.

    A chunk weighs ``exp(alpha * cosine similarity)``: a prediction of another mode is voted down, not averaged in.
    One chunk is given per action step.
    """

    def __init__(self, window: int, alpha: float) -> None:
        """Makes an empty ensemble.

        Args:
            window: number of chunks kept; officially 7 for WidowX, 2 for the Google robot.
            alpha: 0 averages plainly; officially 0.1.

        Raises:
            PolicyError: the window is empty.
        """
        if window < 1:
            raise PolicyError(f"The ensemble's window is {window}; it must hold at least one chunk.")
        self.alpha = alpha
        self._chunks: deque[np.ndarray] = deque(maxlen=window)

    def reset(self) -> None:
        """Forgets all chunks, as a new episode or instruction must."""
        self._chunks.clear()

    def __call__(self, chunk: np.ndarray) -> np.ndarray:
        """Takes the newest chunk and returns the action for its first instant, (A,) float64.

        Args:
            chunk: (H, A) actions from the present on; or (A,), a single action, where every kept one is read as it is.
        """
        self._chunks.append(np.asarray(chunk, dtype=np.float64))
        newest_last = [(age, kept) for age, kept in zip(range(len(self._chunks))[::-1], self._chunks, strict=True)]
        # A chunk older than its length says nothing about the present.
        now = np.stack([kept if kept.ndim == 1 else kept[age] for age, kept in newest_last if age < len(kept)])
        norms = np.linalg.norm(now, axis=1) * np.linalg.norm(now[-1])
        weights = np.exp(self.alpha * (now @ now[-1]) / (norms + _EPS))  # (kept,)
        return weights @ now / weights.sum()
