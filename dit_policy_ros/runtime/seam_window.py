"""The seams of the last chunks, for live diagnostics."""

from __future__ import annotations

from collections import deque

import numpy as np

from dit_policy_ros.actions.smoothness import Seam
from dit_policy_ros.types import seconds


class SeamWindow:
    """Figures over the last ``size`` seams. Not thread-safe but for ``measure``."""

    def __init__(self, size: int = 200) -> None:
        self._seams: deque[Seam] = deque(maxlen=size)

    def add(self, seam: Seam) -> None:
        """Notes a seam."""
        self._seams.append(seam)

    def measure(self) -> dict[str, object]:
        """Returns the figures by name with unit; nothing before the first seam between two chunks."""
        joined = [seam for seam in tuple(self._seams) if np.isfinite(seam.position).all()]
        if not joined:
            return {}
        momenta = np.array([seam.momentum for seam in joined])
        momenta = momenta[np.isfinite(momenta)]
        newest = joined[-1]
        measured: dict[str, object] = {
            "jump at a seam p99": float(np.percentile([seam.position for seam in joined], 99)),
            "change of velocity at a seam p99_per_s": float(np.percentile([seam.velocity for seam in joined], 99)),
            "chunk step p99": float(np.percentile([seam.step for seam in joined], 99)),
            "chunk second difference mean": float(np.mean([seam.second_difference for seam in joined])),
            "delay consumed p95_s": seconds(int(np.percentile([seam.delay_ns for seam in joined], 95))),
            "seams that step back_percent": 100.0 * float(np.mean([seam.steps_back for seam in joined])),
            "context age at the seam_s": seconds(newest.stamp_ns - newest.context_ns),
        }
        if len(momenta):
            measured["momentum cosine p5"] = float(np.percentile(momenta, 5))
        return measured
