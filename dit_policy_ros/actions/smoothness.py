"""How smoothly chunks follow one another. Position units are those of the channels: [rad], or 0..1 for a gripper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.actions.resample import resample_chunk
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.types import NS_PER_S, ActionChunk

MOVING_RAD_S = 1.0
"""An arm whose joints move more slowly than this, as the norm of their speeds over one step, has no direction, [rad/s].

20 mrad in a step of 20 ms; arms at work move with 1 to 4. Single actions of a policy scatter: inside the demo policy's
chunks 3 to 7 % of the steps turn round at more than 0.5 rad/s, less than 0.1 % at more than this.
"""
_AT_REST = 0.02
"""Speeds below it, over all channels, are none, [1/s]."""


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
    """Smallest cosine of any arm between the velocities of plan and chunk; NaN where no arm moves in both.

    Or of those before and after the end of the committed actions, if that is later and smaller.
    """
    steps_back: float
    """1 where an arm steps back, 0 where none does, NaN where nothing ran.

    An arm steps back where it was moving, and the step from the plan at the seam to the next action of the chunk, jump
    included, moves it against that direction; both at more than ``MOVING_RAD_S``. Or where the committed actions end.
    """
    second_difference: np.ndarray
    """(J,) mean absolute second difference of the chunk's actions."""
    step: np.ndarray
    """(J,) largest motion between two actions of the chunk."""

    @property
    def delay_ns(self) -> int:
        """From the observation to the instant at which the chunk took over: the delay that was really consumed."""
        return self.stamp_ns - self.observation_ns


def arms_of(robot: RobotSpec) -> tuple[tuple[str, ...], ...]:
    """Returns the joints of each arm, without grippers: those for which a direction of motion is defined."""
    arms = dict.fromkeys(joint.arm for joint in robot.joints)
    return tuple(
        tuple(joint.name for joint in robot.joints if joint.arm == arm and "gripper" not in joint.slot) for arm in arms
    )


def seam_of(plan: ActionChunk | None, chunk: ActionChunk, now_ns: int, arms: Sequence[Sequence[str]] = ()) -> Seam:
    """Measures the seam between the running plan and a chunk that takes over now, or when it begins.

    Args:
        plan: what would have been executed; its channels may be in another order. None: nothing ran.
        chunk: before any limit.
        arms: of ``arms_of``; without any, all channels are one arm.
    """
    width, step_s = len(chunk.names), chunk.step_ns / NS_PER_S
    differences = np.diff(chunk.actions, axis=0)
    largest = np.abs(differences).max(axis=0) if len(differences) else np.zeros(width)
    position, velocity = np.full(width, np.nan), np.full(width, np.nan)
    momentum = steps_back = float("nan")
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
        turns, told = [(old, new)], [(old, (after[1] - before[1]) / step_s)]
        c = chunk.committed
        if 2 <= c < len(chunk.actions) and chunk.start_ns + c * chunk.step_ns > at_ns:
            turns.append((differences[c - 2] / step_s, differences[c - 1] / step_s))
            told.append(turns[-1])
            velocity = np.maximum(velocity, np.abs(turns[-1][1] - turns[-1][0]))
        groups = [[k for k, name in enumerate(chunk.names) if name in arm] for arm in arms] or [list(range(width))]
        momentum = _sharpest(turns, groups)
        steps_back = float(_sharpest(told, groups) < 0.0)
    return Seam(
        now_ns,
        chunk.observation_ns,
        chunk.context_ns,
        position,
        velocity,
        momentum,
        steps_back,
        second_difference(chunk.actions),
        largest,
    )


def _sharpest(turns: Sequence[tuple[np.ndarray, np.ndarray]], groups: Sequence[Sequence[int]]) -> float:
    """Returns the smallest cosine of any arm between velocities (J,) before and after; NaN where none moves."""
    cosines = [cosine(before[arm], after[arm]) for before, after in turns for arm in groups]
    return float(np.fmin.reduce(cosines))


def second_difference(positions: np.ndarray) -> np.ndarray:
    """Returns the mean absolute second difference of (K, J) positions, (J,); 0 for less than three."""
    return np.abs(np.diff(positions, n=2, axis=0)).mean(axis=0) if len(positions) > 2 else np.zeros(positions.shape[1])


def cosine(before: np.ndarray, after: np.ndarray) -> float:
    """Returns the cosine between two velocities (J,), NaN where either is below ``MOVING_RAD_S``."""
    norms = np.linalg.norm(before), np.linalg.norm(after)
    return float(before @ after / (norms[0] * norms[1])) if min(norms) > MOVING_RAD_S else float("nan")


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
