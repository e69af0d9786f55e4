"""Real-time chunking at inference (Black et al., 2025), for flow matching."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.continuity.wrapped import WrappedPolicy, must_steer
from dit_policy_ros.policy.guidance.real_time import JACOBIANS, MASKS, prefix_weights, real_time
from dit_policy_ros.policy.guide import Guide
from dit_policy_ros.policy.steering import Drawing, Steering, columns_of
from dit_policy_ros.types import ActionChunk, Context, Observation


class RealTimePolicy(WrappedPolicy):
    """Every chunk is drawn towards what is left of the last one; see ``guidance.real_time``."""

    def __init__(self, policy, jacobian: str = "exact", beta: float = 5.0, mask: str = "exp") -> None:
        """Wraps a policy.

        Raises:
            PolicyError: it does not predict a velocity, or an option is unknown.
        """
        must_steer(policy, "real_time", ("velocity",))
        for what, value, allowed in (("Jacobian", jacobian, JACOBIANS), ("Mask", mask, MASKS)):
            if value not in allowed:
                raise PolicyError(one_of(what, value, allowed))
        super().__init__(policy)
        self._jacobian, self._beta, self._mask = jacobian, beta, mask

    def act(self, observation: Observation, context: Context, committed: ActionChunk | None = None) -> ActionChunk:
        """See ``types.Policy``; the committed actions are kept exactly, what follows them softly."""
        previous = self.previous(observation, context)
        count = 0 if committed is None else len(committed.actions)
        if previous is None and committed is None:
            self.last = self.policy.act(observation, context, None)
            return self.last

        def guide(drawing: Drawing) -> Guide:
            return self._guide(drawing, previous, committed)

        chunk = self.policy.act(observation, context, None, Steering(guide=guide))
        if committed is not None:
            actions = np.array(chunk.actions)
            actions[:count] = committed.actions[:, columns_of(committed, chunk.names, "committed prefix")]
            chunk = replace(chunk, actions=actions, committed=count)
        self.last = chunk
        return chunk

    def _guide(self, drawing: Drawing, previous: ActionChunk | None, committed: ActionChunk | None) -> Guide:
        rows = drawing.noise.shape[1] - drawing.lead
        values, end = drawing.of(previous) if previous is not None else (torch.zeros_like(drawing.noise), 0)
        count = 0
        if committed is not None:
            count = len(committed.actions)
            firm, _ = drawing.of(committed)
            values[0, drawing.lead : drawing.lead + count] = firm[0, drawing.lead : drawing.lead + count]
        weights = prefix_weights(rows, count, max(end, count), self._mask)
        held = drawing.noise.new_tensor((*[0.0] * drawing.lead, *weights))
        return lambda network: real_time(network, values, held, self._beta, self._jacobian, drawing.bound)
