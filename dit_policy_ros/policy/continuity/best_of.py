"""Best of several draws by backward coherence, the first half of bidirectional decoding (Liu et al., 2024)."""

from __future__ import annotations

import numpy as np

from dit_policy_ros.actions.resample import resample_chunk
from dit_policy_ros.actions.timing import Timing
from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.continuity.wrapped import WrappedPolicy, must_steer
from dit_policy_ros.policy.steering import Steering
from dit_policy_ros.types import ActionChunk, Context, Observation


class BestOfPolicy(WrappedPolicy):
    """Draws several chunks and takes the one nearest to what is left of the last one."""

    timing = Timing(commits=False)

    def __init__(self, policy, draws: int = 4, decay: float = 0.9) -> None:
        """Wraps a policy.

        Args:
            draws: number of chunks; each costs an inference.
            decay: weight of an action relative to the one before it.

        Raises:
            PolicyError: less than two draws, a decay outside (0, 1], or a policy that cannot be steered.
        """
        must_steer(policy, "best_of")
        if draws < 2 or not 0.0 < decay <= 1.0:
            raise PolicyError(f"{draws} draws with decay {decay}; allowed are 2 and more, and a decay in (0, 1].")
        super().__init__(policy)
        self._draws, self._decay = draws, decay

    def act(self, observation: Observation, context: Context, committed: ActionChunk | None = None) -> ActionChunk:
        """See ``types.Policy``."""
        previous = self.previous(observation, context)
        draws = range(self._draws if previous is not None else 1)
        chunks = [self.policy.act(observation, context, None, Steering(draw=k)) for k in draws]
        distances = [0.0 if previous is None else incoherence(previous, chunk, self._decay) for chunk in chunks]
        self.last = chunks[int(np.argmin(distances))]
        return self.last


def incoherence(previous: ActionChunk, chunk: ActionChunk, decay: float) -> float:
    """Returns the mean distance between two chunks over the instants that both cover; earlier ones weigh more.

    Channels are those of the new chunk, in their own units. 0 where they share no instant.
    """
    shared = (chunk.times_ns >= previous.start_ns) & (chunk.times_ns <= previous.end_ns)
    if not shared.any():
        return 0.0
    columns = [previous.names.index(name) for name in chunk.names]
    before = resample_chunk(previous, chunk.times_ns[shared], "linear")[:, columns]
    weights = decay ** np.arange(len(before))
    distances = np.linalg.norm(chunk.actions[shared] - before, axis=1)
    return float(weights @ distances / weights.sum())
