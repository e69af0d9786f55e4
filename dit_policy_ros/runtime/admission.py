"""Which chunks the executor takes. Every refusal is a text whose first clause, up to the colon, names its kind."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dit_policy_ros.actions.resample import resample_chunk
from dit_policy_ros.actions.splice import ahead
from dit_policy_ros.runtime.executor_config import ExecutorConfig
from dit_policy_ros.types import ActionChunk, nanoseconds, seconds


@dataclass(frozen=True)
class Admission:
    """The rules for one robot."""

    names: tuple[str, ...]
    """All joints, in the executor's order."""
    velocity: np.ndarray
    """(len(names),) speed limits."""
    config: ExecutorConfig

    def reject(self, chunk: ActionChunk, now_ns: int, epoch: int) -> str:
        """Returns '' for a chunk that makes sense and is fresh, else why not. ``epoch`` is the newest one seen."""
        return self._reject_form(chunk) or self._reject_time(chunk, now_ns, epoch)

    def reject_jump(self, chunk: ActionChunk, now_ns: int, rests: tuple[np.ndarray, ...]) -> str:
        """Returns '' for a chunk that begins near where each joint rests, else why not.

        Args:
            chunk: in the executor's order.
            rests: positions that count as "where it rests", (len(names),) each: measured, and commanded if known.
        """
        at_ns = np.array([min(max(now_ns, chunk.start_ns), chunk.end_ns)], dtype=np.int64)
        first = resample_chunk(chunk, at_ns, "linear")[0]
        distance = np.min([np.abs(first - rest) for rest in rests], axis=0)
        allowed = self.velocity * self.config.max_first_jump_s
        excess = distance - allowed
        worst = int(np.argmax(excess))
        if excess[worst] <= 0.0:
            return ""
        return (
            f"first jump: {self.names[worst]} would start {distance[worst]:.3f} away from where it is "
            f"(limit {allowed[worst]:.3f})"
        )

    def ordered(self, chunk: ActionChunk) -> ActionChunk:
        """Returns the chunk with its channels in the executor's order."""
        if chunk.names == self.names:
            return chunk
        columns = [chunk.names.index(name) for name in self.names]
        return replace(chunk, names=self.names, actions=chunk.actions[:, columns])

    def _reject_form(self, chunk: ActionChunk) -> str:
        if len(set(chunk.names)) != len(chunk.names):
            return f"names: a joint appears twice in {', '.join(chunk.names)}"
        missing = [name for name in self.names if name not in chunk.names]
        unknown = [name for name in chunk.names if name not in self.names]
        if missing or unknown:
            parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(
                unknown
            )
            return f"names: the chunk {' and '.join(parts)}"
        if chunk.actions.ndim != 2 or chunk.actions.shape[1] != len(chunk.names) or len(chunk.actions) == 0:
            return f"shape: actions are {chunk.actions.shape}, expected (K, {len(chunk.names)}) with K >= 1"
        if chunk.step_ns <= 0:
            return f"shape: the step is {chunk.step_ns} ns, expected more than 0"
        if not np.isfinite(chunk.actions).all():
            bad = [name for name, ok in zip(chunk.names, np.isfinite(chunk.actions).all(axis=0), strict=True) if not ok]
            return f"not finite: {', '.join(bad)}"
        return ""

    def _reject_time(self, chunk: ActionChunk, now_ns: int, epoch: int) -> str:
        if chunk.epoch < epoch:
            return f"old epoch: {chunk.epoch}, now {epoch}"
        newest_ns = max(chunk.start_ns, chunk.observation_ns, chunk.context_ns)
        if newest_ns - now_ns > nanoseconds(self.config.max_future_s):
            return f"future: {seconds(newest_ns - now_ns):.3f} s ahead (limit {self.config.max_future_s:g} s)"
        reason = stale_context(chunk.context_ns, now_ns, self.config)
        if reason:
            return reason
        if ahead(chunk, now_ns) is None:
            return f"stale chunk: its last action was for {seconds(now_ns - chunk.end_ns):.3f} s ago"
        return ""


def stale_context(context_ns: int, now_ns: int, config: ExecutorConfig) -> str:
    """Returns '' while the context is young enough to act on, else the reason."""
    age_s = seconds(now_ns - context_ns)
    if age_s <= config.max_context_age_s:
        return ""
    return f"stale context: {age_s:.3f} s old (limit {config.max_context_age_s:g} s)"
