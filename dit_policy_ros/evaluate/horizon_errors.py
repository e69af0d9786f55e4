"""How far chunks are from what was recorded, per step of the horizon and joint, beside three simple predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.data.recorded_body import RecordedTargets
from dit_policy_ros.data.scratch import ScratchTable
from dit_policy_ros.types import NS_PER_S, ActionChunk

METHODS = ("policy", "hold", "repeat", "linear")
"""hold: what was measured at the observation. repeat: the last command that was known. linear: on from the last two.
A command is known up to the end of the committed prefix, or at the observation where nothing was committed."""
_BUCKET_NS = NS_PER_S
_KEPT_MOMENTS = 16


@dataclass(frozen=True)
class Moment:
    """One chunk beside what was recorded; H steps, J joints."""

    observation_ns: int
    error: float
    """Mean over steps and joints."""
    times_ns: np.ndarray
    """(H,)."""
    predicted: np.ndarray
    """(H, J)."""
    recorded: np.ndarray
    """(H, J); NaN where nothing was commanded."""
    committed: int
    """Leading steps that the policy was given, and that count nowhere."""


@dataclass(frozen=True)
class ErrorSummary:
    """Mean absolute errors; M methods, H steps, J joints, C chunks."""

    mean: np.ndarray
    """(M, H, J); NaN for steps that never counted."""
    counts: np.ndarray
    """(H,) chunks that counted at each step."""
    per_joint: np.ndarray
    """(M, J) over all steps that counted; NaN where none did."""
    mirrored: np.ndarray
    """(J,) of the policy's value for a joint against the recorded one of its counterpart on the other arm; NaN where a
    joint has none."""
    chunk_ns: np.ndarray
    """(C,) observations of the chunks that counted."""
    per_chunk: np.ndarray
    """(C, M) mean over the steps that counted and joints."""
    moments: tuple[Moment, ...]
    """The worst of some seconds, worst first."""

    @property
    def overall(self) -> np.ndarray:
        """(M,) mean over joints."""
        return self.per_joint.mean(axis=1)


class HorizonErrors:
    """Adds chunks up in constant memory."""

    def __init__(
        self,
        names: tuple[str, ...],
        lower: np.ndarray,
        upper: np.ndarray,
        targets: RecordedTargets,
        horizon: int,
        places: Sequence[int] | None = None,
    ) -> None:
        """Begins with no chunk.

        Args:
            places: of each joint, the index of the one whose predicted value it gets; None gives each its own.
        """
        self._names, self._lower, self._upper, self._targets = names, lower, upper, targets
        self._places = list(range(len(names)) if places is None else places)
        self._sums = np.zeros((len(METHODS), horizon, len(names)))
        self._counts = np.zeros(horizon, dtype=np.int64)
        self._mirror = [counterpart(name, names) for name in names]
        self._mirrored = np.zeros(len(names))
        self._chunk_ns = ScratchTable(dtype=np.int64)
        self._per_chunk = ScratchTable(len(METHODS))
        self._moments: dict[int, Moment] = {}

    def add(self, chunk: ActionChunk, measured: np.ndarray) -> None:
        """Compares one chunk.

        Args:
            chunk: its names are the robot's, in any order.
            measured: (J,) positions at the observation.
        """
        predicted = chunk.actions[:, [chunk.names.index(self._names[place]) for place in self._places]]
        recorded = self._targets.at(chunk.times_ns)
        baselines = self._baselines(chunk, measured)
        counts = np.isfinite(recorded).all(axis=1)
        counts[: chunk.committed] = False
        if baselines is None or not counts.any():
            return
        errors = np.abs(np.stack([predicted, *baselines]) - recorded)[:, counts]
        steps = np.flatnonzero(counts)
        self._sums[:, steps] += errors
        self._counts[steps] += 1
        self._mirrored += np.abs(predicted - recorded[:, self._mirror])[counts].sum(axis=0)
        self._chunk_ns.append(chunk.observation_ns)
        self._per_chunk.append(errors.mean(axis=(1, 2)))
        error = float(errors[0].mean())
        self._remember(Moment(chunk.observation_ns, error, chunk.times_ns, predicted, recorded, chunk.committed))

    def summary(self) -> ErrorSummary:
        """Returns the means so far."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = self._sums / self._counts[:, None]
            per_joint = self._sums.sum(axis=1) / self._counts.sum()
            mirrored = self._mirrored / self._counts.sum()
        mirrored[np.array(self._mirror) == np.arange(len(self._names))] = np.nan
        return ErrorSummary(
            mean=mean,
            counts=self._counts.copy(),
            per_joint=per_joint,
            mirrored=mirrored,
            chunk_ns=self._chunk_ns.array(),
            per_chunk=self._per_chunk.array(),
            moments=tuple(sorted(self._moments.values(), key=lambda moment: (-moment.error, moment.observation_ns))),
        )

    def _baselines(self, chunk: ActionChunk, measured: np.ndarray) -> list[np.ndarray] | None:
        """Returns hold, repeat and linear, (H, J) each; None before the first command."""
        known_ns = chunk.start_ns + max(chunk.committed - 1, 0) * chunk.step_ns
        before, last = self._targets.at(np.array([known_ns - chunk.step_ns, known_ns]))
        if not np.isfinite(last).all():
            return None
        per_step = np.where(np.isfinite(before), last - before, 0.0)
        steps = (chunk.times_ns - known_ns)[:, None] / chunk.step_ns
        linear = np.clip(last + steps * per_step, self._lower, self._upper)
        return [np.broadcast_to(measured, linear.shape), np.broadcast_to(last, linear.shape), linear]

    def _remember(self, moment: Moment) -> None:
        """Keeps the worst chunk of each second, and of these the worst."""
        bucket = moment.observation_ns // _BUCKET_NS
        if bucket not in self._moments or self._moments[bucket].error < moment.error:
            self._moments[bucket] = moment
        if len(self._moments) > _KEPT_MOMENTS:
            del self._moments[min(self._moments, key=lambda key: self._moments[key].error)]


def counterpart(name: str, names: tuple[str, ...]) -> int:
    """Returns the index of the same joint on the other arm, by its name; the joint's own where there is none."""
    for one, other in (("left", "right"), ("right", "left")):
        if one in name and name.replace(one, other) in names:
            return names.index(name.replace(one, other))
    return names.index(name)
