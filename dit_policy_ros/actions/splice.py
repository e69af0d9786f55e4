"""Joining chunks by time: what of a new one is ahead, and what of the running plan is already committed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dit_policy_ros.actions.resample import resample_chunk
from dit_policy_ros.types import ActionChunk


def ahead(chunk: ActionChunk, now_ns: int) -> ActionChunk | None:
    """Returns the actions of a chunk for instants after ``now_ns``, or None where all lie in the past."""
    passed = max(0, (now_ns - chunk.start_ns) // chunk.step_ns + 1)
    if passed >= len(chunk.actions):
        return None
    return replace(
        chunk,
        start_ns=chunk.start_ns + passed * chunk.step_ns,
        actions=chunk.actions[passed:],
        committed=max(0, chunk.committed - passed),
    )


def with_pending(plan: ActionChunk | None, chunk: ActionChunk, from_ns: int) -> ActionChunk:
    """Returns what will run once a chunk that was handed over has taken effect: the plan, and the chunk from then on.

    Without this, a chunk that is planned right after another one would begin with what that one replaces.

    Args:
        plan: what runs until then, with the same channels in any order; None: nothing does.
        from_ns: when the chunk takes effect.
    """
    if plan is None or plan.end_ns < plan.start_ns:
        return chunk
    seam_ns = max(from_ns, chunk.start_ns)
    times_ns = np.arange(plan.start_ns, max(chunk.end_ns, plan.start_ns) + 1, plan.step_ns, dtype=np.int64)
    columns = [plan.names.index(name) for name in chunk.names]
    actions = resample_chunk(plan, np.minimum(times_ns, plan.end_ns))[:, columns]
    new = times_ns >= seam_ns
    if new.any():
        actions[new] = resample_chunk(chunk, times_ns[new])
    return replace(chunk, start_ns=plan.start_ns, step_ns=plan.step_ns, actions=actions, committed=0)


def committed_prefix(
    plan: ActionChunk | None, start_ns: int, step_ns: int, count: int, method: str = "cubic"
) -> ActionChunk | None:
    """Returns what the running plan does at ``start_ns + k * step_ns`` for k < count, as a chunk on that grid.

    Past the plan's end its last action is held, because that is what controllers do.

    Returns:
        None where there is no plan, none of it is asked for, or ``start_ns`` lies before what the plan remembers.
    """
    if plan is None or count <= 0 or start_ns < plan.start_ns:
        return None
    instants_ns = start_ns + step_ns * np.arange(count, dtype=np.int64)
    actions = resample_chunk(plan, np.minimum(instants_ns, plan.end_ns), method)
    return replace(plan, start_ns=start_ns, step_ns=step_ns, actions=actions, committed=count)
