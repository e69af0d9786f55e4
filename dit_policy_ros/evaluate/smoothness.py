"""Smoothness and timing of an episode, simulated, replayed or live: arrays to be pooled, and their summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.actions.smoothness import MOVING_RAD_S, Seam, spectral_arc_length
from dit_policy_ros.data.quantiles import without_nan
from dit_policy_ros.data.scratch import ScratchTable
from dit_policy_ros.evaluate.statistics import percentiles
from dit_policy_ros.types import seconds

SEAM_JUMP = "jump at a seam"
SEAM_JUMP_MEANS = (
    "Jump at a seam: distance of each joint [rad], of a gripper [0 to 1], between a new chunk and what was going to be "
    "executed, at the instant at which the chunk arrives (or begins, if that is later), before limits."
)
"""What is called so on every page; measured by ``actions.smoothness.seam_of``."""
STEP_BACK = "seams that step back"
STEP_BACK_MEANS = (
    "Step back: at the seam an arm is moved against the direction in which it was moving, the jump included, before "
    f"and after at more than {MOVING_RAD_S:g} rad/s over its joints; slower motion has no direction."
)
"""The same on every page; measured there too."""


class SeamLog:
    """Figures of seams in their order, as many as there are; C seams, J joints."""

    def __init__(self, joints: int) -> None:
        self._tables = {
            **{name: ScratchTable(joints) for name in ("position", "velocity", "second_difference", "step")},
            **{name: ScratchTable() for name in ("momentum", "steps_back", "delay_s")},
        }

    def append(self, seam: Seam) -> None:
        """Adds one."""
        for name, table in self._tables.items():
            table.append(seconds(seam.delay_ns) if name == "delay_s" else getattr(seam, name))

    def array(self, name: str) -> np.ndarray:
        """Returns a figure of all seams, (C, J), or (C,) for those of whole seams; named as in ``Seam``."""
        return self._tables[name].array()

    def summary(self) -> dict[str, object]:
        """Returns percentiles by name, over single joints at single seams."""
        return {
            "seam_position": percentiles(self.array("position")),
            "seam_velocity": percentiles(self.array("velocity")),
            "seams_backwards": _mean(self.array("steps_back")),
            "chunk_step": percentiles(self.array("step")),
            "chunk_second_difference": percentiles(self.array("second_difference")),
            "delay_consumed_s": percentiles(self.array("delay_s")),
        }


@dataclass(frozen=True)
class Smoothness:
    """C seams, T control periods, J joints. What was not measured is NaN or empty."""

    seam_positions: np.ndarray
    """(C, J) jumps at the seams, see ``SEAM_JUMP_MEANS``; NaN for a chunk that takes over from nothing."""
    seam_velocities: np.ndarray
    """(C, J) change of velocity there, [1/s]."""
    momenta: np.ndarray
    """(C,) cosine between the velocities before and after a seam, see ``Seam.momentum``."""
    steps_back: np.ndarray
    """(C,) 1 where an arm steps back, see ``STEP_BACK_MEANS``, 0 elsewhere; NaN for a chunk that joins nothing."""
    second_differences: np.ndarray
    """(C, J) mean absolute second difference inside each chunk."""
    steps: np.ndarray
    """(C, J) largest motion between two actions of each chunk."""
    delays_s: np.ndarray
    """(C,) from an observation to its chunk taking over."""
    commanded_second_differences: np.ndarray
    """(T - 2, J) absolute second difference of what the controllers were told, seams included."""
    spectral_arc_length: float
    """Of the speed of all commanded joints together."""
    unplanned: np.ndarray
    """(T,) 1 in a control period without a fresh chunk, 0 with one; NaN before the first."""
    chunk_ages_s: np.ndarray
    """(T,) age of the observation behind the chunk that acts."""


def smoothness_of(
    seams: Sequence[Seam],
    commanded: np.ndarray,
    step_s: float,
    planned: np.ndarray,
    chunk_ages_s: np.ndarray,
) -> Smoothness:
    """Measures one episode.

    Args:
        seams: in order.
        commanded: (T, J) at equal distances; NaN where nothing was commanded.
        step_s: that distance, [s].
        planned: (T,) bool, whether a fresh chunk is in force.
        chunk_ages_s: (T,).
    """
    width = commanded.shape[1]
    known = commanded[np.isfinite(commanded).all(axis=1)]
    speeds = np.linalg.norm(np.diff(known, axis=0), axis=1) / step_s
    unplanned = np.where(planned, 0.0, 1.0)
    unplanned[: int(np.argmax(planned)) if planned.any() else len(planned)] = np.nan
    rows = SeamLog(width)
    for seam in seams:
        rows.append(seam)
    return Smoothness(
        seam_positions=rows.array("position"),
        seam_velocities=rows.array("velocity"),
        momenta=rows.array("momentum"),
        steps_back=rows.array("steps_back"),
        second_differences=rows.array("second_difference"),
        steps=rows.array("step"),
        delays_s=rows.array("delay_s"),
        commanded_second_differences=np.abs(np.diff(known, n=2, axis=0)).reshape(-1, width),
        spectral_arc_length=spectral_arc_length(speeds, step_s),
        unplanned=unplanned,
        chunk_ages_s=np.asarray(chunk_ages_s, dtype=np.float64),
    )


def summary(episodes: Iterable[Smoothness]) -> dict[str, object]:
    """Returns the figures of some episodes together, by name; percentiles are of single joints at single seams."""
    known = tuple(episodes)

    def pooled(name: str) -> np.ndarray:
        parts = [np.atleast_1d(getattr(episode, name)).reshape(-1) for episode in known]
        return np.concatenate(parts) if parts else np.zeros(0)

    return {
        "seam_position": percentiles(pooled("seam_positions")),
        "seam_velocity": percentiles(pooled("seam_velocities")),
        "momentum_cosine": percentiles(pooled("momenta"), (1, 5, 50)),
        "seams_backwards": _mean(pooled("steps_back")),
        "chunk_step": percentiles(pooled("steps")),
        "chunk_second_difference": percentiles(pooled("second_differences")),
        "chunk_second_difference_mean": _mean(pooled("second_differences")),
        "commanded_second_difference": percentiles(pooled("commanded_second_differences")),
        "spectral_arc_length": percentiles(pooled("spectral_arc_length"), (5, 50, 95)),
        "unplanned_share": _mean(pooled("unplanned")),
        "chunk_age_s": percentiles(pooled("chunk_ages_s")),
        "delay_consumed_s": percentiles(pooled("delays_s")),
    }


def _mean(values: np.ndarray) -> float | None:
    """Of what is known; None where nothing is."""
    known = without_nan(values)
    return float(known.mean()) if len(known) else None
