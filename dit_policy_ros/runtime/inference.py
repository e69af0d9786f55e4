"""One call of a policy: whatever it breaks with, and numbers that are none, become a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from dit_policy_ros.errors import DitPolicyError, PolicyError
from dit_policy_ros.types import ActionChunk, Context

Result = TypeVar("Result", Context, ActionChunk)


def checked(infer: Callable[[], Result], what: str) -> Result:
    """Returns an inference's result; whatever a network breaks with is a reason, and the next round tries again.

    Args:
        what: 'encode' or 'act', for the reason.

    Raises:
        PolicyError: it broke, or gave a chunk that is not finite: nothing may be planned on from that.
    """
    try:
        result = infer()
        if isinstance(result, ActionChunk) and not np.isfinite(result.actions).all():
            finite = np.atleast_1d(np.isfinite(result.actions).all(axis=0))
            bad = ", ".join(name for name, good in zip(result.names, finite, strict=False) if not good)
            raise PolicyError(f"{what} gave actions that are not finite: {bad}")
    except DitPolicyError:
        raise
    except Exception as problem:
        raise PolicyError(f"{what} broke with {type(problem).__name__}: {problem}") from problem
    return result
