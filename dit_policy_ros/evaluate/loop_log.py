"""What a run in virtual time leaves behind, period by period."""

from __future__ import annotations

import numpy as np

from dit_policy_ros.actions.smoothness import Seam
from dit_policy_ros.data.scratch import ScratchTable
from dit_policy_ros.runtime.executor import Executor, ExecutorState, Splice, StateChange
from dit_policy_ros.runtime.synchroniser import Synchroniser
from dit_policy_ros.types import seconds


class LoopLog:
    """Grows by one entry a control period; those of a long run lie on disk."""

    def __init__(self, joints: int) -> None:
        self.times_ns = ScratchTable(dtype=np.int64)
        self.commanded = ScratchTable(joints)
        """NaN before the first command."""
        self.measured = ScratchTable(joints)
        """NaN before the first joint state."""
        self.context_ages_s = ScratchTable()
        self.chunk_ages_s = ScratchTable()
        """Age of the observation behind the chunk that acts."""
        self.planned = ScratchTable(dtype=bool)
        """Whether a chunk is in force, and not only its deceleration."""
        self.splices: list[Splice] = []
        self.seams: list[Seam] = []
        """As many as splices, in the same order."""
        self.changes: list[StateChange] = []
        self.starved: dict[str, int] = {}
        self.failures: list[str] = []
        """What a policy said when it failed."""
        self.encodes = 0
        self.chunks = 0

    def note(self, executor: Executor, synchroniser: Synchroniser, now_ns: int) -> None:
        """Notes one control period, before the body moves."""
        reference, age_ns = executor.reference(now_ns), executor.context_age_ns(now_ns)
        measured = synchroniser.joints.at(now_ns)
        plan = executor.plan
        moving = executor.state is ExecutorState.MOVING
        self.times_ns.append(now_ns)
        self.commanded.append(np.nan if reference is None else reference)
        self.measured.append(np.nan if measured is None else measured)
        self.context_ages_s.append(float("nan") if age_ns is None else seconds(age_ns))
        self.chunk_ages_s.append(seconds(now_ns - plan.observation_ns) if moving and plan else float("nan"))
        self.planned.append(moving)
