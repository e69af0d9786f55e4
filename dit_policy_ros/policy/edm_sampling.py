"""Sampling that the families with EDM noise levels share: MoDE, MDT, MDT-V."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from dit_policy_ros.policy.guide import Guide, guided
from dit_policy_ros.policy.samplers import edm_ddim
from dit_policy_ros.policy.samplers.edm import EdmDenoiser
from dit_policy_ros.policy.schedules import exponential_sigmas


class EdmSampling(nn.Module):
    """Base of networks whose ``config`` has ``steps``, ``sigma_min`` and ``sigma_max``."""

    config: Any

    denoise = nn.Module.__call__

    def sigmas(self, steps: int | None = None) -> tuple[float, ...]:
        """Returns the noise levels of sampling, the last one 0."""
        c = self.config
        return exponential_sigmas(steps or c.steps, c.sigma_min, c.sigma_max)

    def denoiser(self, cache: Any) -> EdmDenoiser:
        """Returns the network of one observation."""
        return lambda x, sigma: self(cache, x, sigma)

    def sample(
        self,
        cache: Any,
        noise: Tensor,
        steps: int | None = None,
        sigmas: Sequence[float] | None = None,
        guide: Guide | None = None,
    ) -> Tensor:
        """Returns actions (B, H, A) from standard normal noise of that shape.

        Args:
            sigmas: noise levels instead of those of ``steps``, descending, the last one 0.
        """
        sigmas = self.sigmas(steps) if sigmas is None else sigmas
        return edm_ddim(guided(self.denoiser(cache), guide), noise * sigmas[0], sigmas)
