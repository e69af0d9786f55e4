"""Sampling and loss that the flow-matching families of the RDT line share. Flow time is 0 for noise, 1 for actions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dit_policy_ros.policy.corruption import interpolated
from dit_policy_ros.policy.guide import Guide, guided
from dit_policy_ros.policy.samplers import euler
from dit_policy_ros.policy.samplers.flow import Velocity
from dit_policy_ros.policy.schedules import uniform_times


class FlowMatching(nn.Module):
    """Base of networks called as ``self(cache, x, t, state)``, whose ``config`` has ``steps``."""

    config: Any

    denoise = nn.Module.__call__

    def velocity(self, cache: Any, state: Tensor) -> Velocity:
        """Returns the network of one observation with a state (B, 1, S)."""
        return lambda x, t: self(cache, x, torch.tensor([t], device=x.device), state)

    def sample(
        self, cache: Any, noise: Tensor, state: Tensor, steps: int | None = None, guide: Guide | None = None
    ) -> Tensor:
        """Returns actions (B, H, A) from standard normal noise (B, H, A) by equal Euler steps."""
        return euler(guided(self.velocity(cache, state), guide), noise, uniform_times(steps or self.config.steps))

    def loss(self, cache: Any, actions: Tensor, noise: Tensor, t: Tensor, state: Tensor) -> Tensor:
        """Returns the mean squared error of the velocity at (B,) flow times, over all entries."""
        return F.mse_loss(self(cache, interpolated(actions, noise, t), t, state), actions - noise)
