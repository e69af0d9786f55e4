"""Runge-Kutta samplers for flow matching. Flow time runs from 0 (noise) to 1 (action).

A network with the opposite convention is turned around at its family's border:
``velocity = lambda x, t: -network(x, 1.0 - t)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dit_policy_ros.errors import PolicyError

Velocity = Callable[[Tensor, float], Tensor]
"""``velocity(x, t)`` is dx/dt at flow time t, shape of x."""


def _intervals(times: Sequence[float]) -> list[tuple[float, float]]:
    pairs = list(pairwise(times))
    if not pairs or any(t >= after for t, after in pairs):
        raise PolicyError(f"Flow times must be at least two and ascending; got {list(times)}.")
    return pairs


@torch.no_grad()
def euler(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Tensor:
    """Explicit Euler, order 1: one evaluation a step, never at the last time.

    Raises:
        PolicyError: the times are not ascending.
    """
    for t, after in _intervals(times):
        x = x + (after - t) * velocity(x, t)
    return x


@torch.no_grad()
def heun(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Tensor:
    """Heun's method, order 2: two evaluations a step, the last one at the last time.

    Raises:
        PolicyError: the times are not ascending.
    """
    for t, after in _intervals(times):
        slope = velocity(x, t)
        x = x + (after - t) / 2 * (slope + velocity(x + (after - t) * slope, after))
    return x


@torch.no_grad()
def rk4(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Tensor:
    """The classical Runge-Kutta method, order 4: four evaluations a step, the last one at the last time.

    Raises:
        PolicyError: the times are not ascending.
    """
    for t, after in _intervals(times):
        step, middle = after - t, (t + after) / 2
        k1 = velocity(x, t)
        k2 = velocity(x + step / 2 * k1, middle)
        k3 = velocity(x + step / 2 * k2, middle)
        k4 = velocity(x + step * k3, after)
        x = x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x
