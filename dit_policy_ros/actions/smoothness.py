"""How smoothly chunks follow one another. Position units are those of the channels: [rad], or 0..1 for a gripper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dit_policy_ros.actions.resample import resample_chunk
from dit_policy_ros.types import NS_PER_S, ActionChunk

_AT_REST = 0.02
"""Speeds below it, over all channels, are noise without direction, [1/s]."""


@dataclass(frozen=True)
class Seam:
    """Where a chunk takes over from what was running; J channels in the chunk's order."""

    stamp_ns: int
    observation_ns: int
    context_ns: int
    position: np.ndarray
    """(J,) distance between chunk and running plan where it takes over; NaN where nothing ran."""
    velocity: np.ndarray
    """(J,) change of velocity there, or where the committed actions end if that is later and larger; [1/s]."""
    momentum: float
    """Cosine between the velocities before and after, all channels together; NaN where either rests."""
    second_difference: np.ndarray
    """(J,) mean absolute second difference of the chunk's actions."""
    step: np.ndarray
    """(J,) largest motion between two actions of the chunk."""

    @property
    def delay_ns(self) -> int:
        """From the observation to the instant at which the chunk took over: the delay that was really consumed."""
        return self.stamp_ns - self.observation_ns


def seam_of(plan: ActionChunk | None, chunk: ActionChunk, now_ns: int) -> Seam:
    """Measures the seam between the running plan and a chunk that takes over now, or when it begins.

    Args:
        plan: what would have been executed; its channels may be in another order. None: nothing ran.
        chunk: before any limit.
    """
    width, step_s = len(chunk.names), chunk.step_ns / NS_PER_S
    differences = np.diff(chunk.actions, axis=0)
    largest = np.abs(differences).max(axis=0) if len(differences) else np.zeros(width)
    position, velocity, momentum = np.full(width, np.nan), np.full(width, np.nan), float("nan")
    if plan is not None:
        at_ns = min(max(now_ns, chunk.start_ns), chunk.end_ns)
        columns = [plan.names.index(name) for name in chunk.names]
        instants_ns = np.array([at_ns - chunk.step_ns, at_ns])
        before = resample_chunk(plan, np.clip(instants_ns, plan.start_ns, plan.end_ns), "cubic")[:, columns]
        instants_ns = np.clip([at_ns, at_ns + chunk.step_ns], chunk.start_ns, chunk.end_ns)
        after = resample_chunk(chunk, instants_ns, "linear")
        position = np.abs(after[0] - before[1])
        old, new = (np.diff(rows, axis=0)[0] / step_s for rows in (before, after))
        velocity = np.abs(new - old)
        momentum = cosine(old, new)
        c = chunk.committed
        if 2 <= c < len(chunk.actions) and chunk.start_ns + c * chunk.step_ns > at_ns:
            velocity = np.maximum(velocity, np.abs(differences[c - 1] - differences[c - 2]) / step_s)
    return Seam(
        now_ns,
        chunk.observation_ns,
        chunk.context_ns,
        position,
        velocity,
        momentum,
        second_difference(chunk.actions),
        largest,
    )


def second_difference(positions: np.ndarray) -> np.ndarray:
    """Returns the mean absolute second difference of (K, J) positions, (J,); 0 for less than three."""
    return np.abs(np.diff(positions, n=2, axis=0)).mean(axis=0) if len(positions) > 2 else np.zeros(positions.shape[1])


def cosine(before: np.ndarray, after: np.ndarray) -> float:
    """Returns the cosine between two velocities (J,), NaN where either rests."""
    norms = np.linalg.norm(before), np.linalg.norm(after)
    return float(before @ after / (norms[0] * norms[1])) if min(norms) > _AT_REST else float("nan")


def spectral_arc_length(speeds: np.ndarray, step_s: float, cutoff_hz: float = 10.0, threshold: float = 0.05) -> float:
    """Returns SPARC (Balasubramanian et al., 2015): the negative arc length of the normalised spectrum of a speed.

    0 is a pure tone at 0 Hz; jerky motions are below about -2.

    Args:
        speeds: (K,) at equal distances.
        step_s: that distance, [s].
        cutoff_hz: frequencies above it are ignored.
        threshold: amplitudes below it, relative to the largest, are cut off at both ends.

    Returns:
        NaN for less than two speeds, and where nothing moves.
    """
    if len(speeds) < 2 or not np.any(np.abs(speeds) > _AT_REST):
        return float("nan")
    size = 2 ** (int(np.ceil(np.log2(len(speeds)))) + 4)
    amplitudes = np.abs(np.fft.rfft(speeds, size))
    frequencies = np.fft.rfftfreq(size, step_s)
    kept = frequencies <= cutoff_hz
    amplitudes, frequencies = amplitudes[kept] / amplitudes.max(), frequencies[kept]
    strong = np.flatnonzero(amplitudes >= threshold)
    amplitudes, frequencies = (row[strong[0] : strong[-1] + 1] for row in (amplitudes, frequencies))
    if len(frequencies) < 2:
        return 0.0
    width = np.diff(frequencies) / (frequencies[-1] - frequencies[0])
    return -float(np.sqrt(width**2 + np.diff(amplitudes) ** 2).sum())
