"""Real-time chunking (Black et al., 2025): a new chunk is drawn towards what the last one left to do.

Flow time runs from 0 (noise) to 1 (action). Symbols of the paper: horizon H, delay d (actions consumed before the
new chunk is ready), execution horizon s (actions between two chunk starts), ``end`` = H - s, beta (largest weight).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.policy.samplers.flow import Velocity

MASKS = ("exp", "linear", "ones", "zeros")
JACOBIANS = ("exact", "identity")


def prefix_weights(horizon: int, delay: int, end: int, mask: str = "exp") -> tuple[float, ...]:
    """Returns how firmly each action is held to the previous chunk, (horizon,) values 1 to 0.

    1 for the first ``min(delay, end)`` actions, 0 from ``end`` on, and between them by ``mask``: 'linear' falls
    evenly, 'exp' faster, 'ones' stays 1, 'zeros' is 0.

    Args:
        horizon: actions in a chunk.
        delay: actions that will be consumed before the new chunk is ready.
        end: leading actions that the previous chunk still covers; LeRobot calls it execution_horizon.
        mask: see above.

    Raises:
        PolicyError: unknown mask.
    """
    if mask not in MASKS:
        raise PolicyError(one_of("Mask", mask, MASKS))
    start = max(min(delay, end), 0)

    def weight(i: int) -> float:
        if i >= end:
            return 0.0
        if i < start or mask == "ones":
            return 1.0
        if mask == "zeros":
            return 0.0
        c = (end - i) / (end - start + 1)
        return c if mask == "linear" else c * math.expm1(c) / math.expm1(1.0)

    return tuple(weight(i) for i in range(horizon))


def guidance_weight(t: float, beta: float) -> float:
    """Returns ``min(beta, (t^2 + (1 - t)^2) / (t (1 - t)))``, beta at both ends."""
    product = t * (1.0 - t)
    return beta if product <= 0.0 else min(beta, (t**2 + (1.0 - t) ** 2) / product)


@dataclass(frozen=True)
class Correction:
    """What one guided evaluation is made of, each (B, H, A)."""

    velocity: Tensor
    clean: Tensor
    """The action chunk that the velocity points to."""
    error: Tensor
    """Weighted difference between the previous chunk and that."""
    correction: Tensor
    """The error pulled back to the noisy sample."""


def correction(
    velocity: Velocity, x: Tensor, t: float, previous: Tensor, weights: Tensor, jacobian: str = "exact"
) -> Correction:
    """Evaluates a velocity and the direction that brings its chunk towards the previous one.

    Args:
        velocity: the policy.
        x: (B, H, A) noisy sample at flow time ``t``.
        previous: (B, H, A) previous chunk, moved so that row 0 is for the same instant; what it lacks is ignored.
        weights: (H,) of :func:`prefix_weights`.
        jacobian: 'exact' is the vector-Jacobian product of the paper; it needs gradients, so it does not run under
            ``torch.inference_mode``. 'identity' is LeRobot's form, without a backward pass.

    Raises:
        PolicyError: unknown jacobian.
    """
    if jacobian not in JACOBIANS:
        raise PolicyError(one_of("Jacobian", jacobian, JACOBIANS))
    with torch.set_grad_enabled(jacobian == "exact"):
        x = x.detach().requires_grad_(jacobian == "exact")
        v = velocity(x, t)
        clean = x + (1.0 - t) * v
        # Not a product alone: rows without a counterpart may hold anything, even nan.
        rows = weights[:, None]
        error = torch.where(rows > 0, (previous - clean.detach()) * rows, 0.0)
        pulled = torch.autograd.grad(clean, x, error)[0] if jacobian == "exact" else error
    return Correction(v.detach(), clean.detach(), error, pulled)


def real_time(
    velocity: Velocity,
    previous: Tensor,
    weights: Tensor,
    beta: float = 5.0,
    jacobian: str = "exact",
    bound: float | None = None,
) -> Velocity:
    """Returns the guided velocity.

    Args:
        velocity: the policy.
        previous: (B, H, A), see :func:`correction`.
        weights: (H,) of :func:`prefix_weights`.
        beta: largest guidance weight; the paper's is 5.
        jacobian: 'exact' or 'identity', see :func:`correction`.
        bound: largest absolute normalised action. The chunk that the guided velocity points to is clamped to it:
            near a boundary between modes the exact Jacobian otherwise shoots far outside within few steps.
    """

    def guided(x: Tensor, t: float) -> Tensor:
        parts = correction(velocity, x, t, previous, weights, jacobian)
        v = parts.velocity + guidance_weight(t, beta) * parts.correction
        if bound is None or t >= 1.0:
            return v
        return ((x + (1.0 - t) * v).clamp(-bound, bound) - x) / (1.0 - t)

    return guided
