"""Block-wise Adaptive Caching (Ji et al., 2025), online half: stored outputs are added until the next update step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from dit_policy_ros.errors import PolicyError


class BlockCache:
    """Computes one sub-block at its update steps and repeats the stored output between them. Serves one run.

    Args:
        update: which steps are computed, in order of execution.
    """

    def __init__(self, update: Sequence[bool]) -> None:
        self.update = tuple(update)
        self._stored: Tensor | None = None

    def __call__(self, step: int, compute: Callable[[], Tensor]) -> Tensor:
        """Returns the output of a step, computed or stored; before the first update step it is computed.

        Raises:
            PolicyError: the run has more steps than the cache was made for.
        """
        if step >= len(self.update):
            raise PolicyError(f"Step {step} of a run that the cache expects to have {len(self.update)} steps.")
        if self.update[step]:
            self._stored = compute()
        return compute() if self._stored is None else self._stored
