"""State roll-forward (VLASH, 2025): the policy is given the state that the robot will have when its chunk begins."""

from __future__ import annotations

from dataclasses import replace

from dit_policy_ros.policy.continuity.wrapped import WrappedPolicy
from dit_policy_ros.types import ActionChunk, Context, Observation


class RolledForwardPolicy(WrappedPolicy):
    """Replaces the measured positions by the last committed action, and moves the chunk there in time.

    Images stay what they are; the authors train with states that run ahead of the images by a random time.
    """

    def act(self, observation: Observation, context: Context, committed: ActionChunk | None = None) -> ActionChunk:
        """See ``types.Policy``; without anything committed it is the policy's own chunk."""
        if committed is None or not len(committed.actions):
            return self.policy.act(observation, context, None)
        last = dict(zip(committed.names, committed.actions[-1].tolist(), strict=True))
        positions = {name: last.get(name, value) for name, value in observation.positions.items()}
        chunk = self.policy.act(replace(observation, positions=positions), context, None)
        return replace(chunk, start_ns=committed.end_ns)
