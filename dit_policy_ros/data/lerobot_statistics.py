"""The statistics that a LeRobotDataset v3 keeps of every column, of each episode and of all."""

from __future__ import annotations

from typing import Any

import numpy as np

from dit_policy_ros.data.running_statistics import RunningStatistics

_PIXELS = 20_000
"""Of an image, at most; a mean needs no more."""
_KINDS = ("min", "max", "mean", "std", "q01", "q99")


class ColumnStatistics:
    """Of one column, or of one camera with its colours as channels in 0..1."""

    def __init__(self, channels: int, is_image: bool = False) -> None:
        self._channels, self._is_image = channels, is_image
        self._all, self._episode = RunningStatistics(channels), RunningStatistics(channels)

    def add(self, values: np.ndarray) -> None:
        """Adds (N, channels) values, or one (H, W, 3) uint8 image."""
        if self._is_image:
            step = max(1, int(np.sqrt(values.shape[0] * values.shape[1] / _PIXELS)))
            values = values[::step, ::step].reshape(-1, self._channels) / 255.0
        self._all.add(values)
        self._episode.add(values)

    def end_episode(self) -> dict[str, Any]:
        """Returns the statistics of the values since the last call."""
        told = self._tell(self._episode)
        self._episode = RunningStatistics(self._channels)
        return told

    def total(self) -> dict[str, Any]:
        """Returns the statistics of all values."""
        return self._tell(self._all)

    def _tell(self, running: RunningStatistics) -> dict[str, Any]:
        result = running.result()
        # LeRobot broadcasts an image's against (channels, height, width).
        shape = (self._channels, 1, 1) if self._is_image else (self._channels,)
        told: dict[str, Any] = {kind: getattr(result, kind).reshape(shape).tolist() for kind in _KINDS}
        return told | {"count": [result.count]}
