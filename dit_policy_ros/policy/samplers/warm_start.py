"""Real-time iteration (RTI-DP, Duan et al., 2025): the last chunk, moved on in time, is denoised again.

A query is :func:`ddpm` over a short list of low diffusion steps, with ``stride = 1``, from :func:`advanced`. The list
may skip steps; the sampler still goes down one at a time, which is what the authors do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dit_policy_ros.errors import PolicyError, one_of

GRIPPERS = ("clip", "scale")


def advanced(chunk: Tensor, steps: int = 1) -> Tensor:
    """Returns a (B, H, A) chunk moved ``steps`` rows forward in time, its last row repeated.

    Raises:
        PolicyError: negative steps.
    """
    if steps < 0:
        raise PolicyError(f"A chunk cannot be moved {steps} steps; allowed are 0 and more.")
    steps = min(steps, chunk.shape[1])
    return torch.cat([chunk[:, steps:], chunk[:, -1:].expand(-1, steps, -1)], 1)


def snapped(chunk: Tensor, channels: Sequence[int]) -> Tensor:
    """Returns the chunk with its gripper channels at +1 where they are above 0 and at -1 elsewhere."""
    result = chunk.clone()
    result[..., list(channels)] = torch.where(chunk[..., list(channels)] > 0, 1.0, -1.0)
    return result


def next_guess(chunk: Tensor, channels: Sequence[int], gripper: str, factor: float = 1.0) -> Tensor:
    """Returns what the next query starts from.

    A two-valued gripper is far from every other value, so that low diffusion steps cannot change its mind.

    Args:
        chunk: (B, H, A) denoised chunk in the units of the network.
        channels: gripper channels.
        gripper: 'clip' writes +-1 / factor into the guess; 'scale' leaves it, for a network that was trained on
            gripper values divided by ``factor``.
        factor: see ``gripper``.

    Raises:
        PolicyError: unknown treatment.
    """
    if gripper not in GRIPPERS:
        raise PolicyError(one_of("Gripper treatment", gripper, GRIPPERS))
    if gripper == "scale":
        return chunk
    result = chunk.clone()
    result[..., list(channels)] = snapped(chunk, channels)[..., list(channels)] / factor
    return result
