"""How many cores the numerics of this process may use."""

from __future__ import annotations

import torch


def limit_threads(count: int) -> None:
    """Keeps torch to ``count`` threads an operation, so that two policy processes do not fight for the cores."""
    torch.set_num_threads(count)
