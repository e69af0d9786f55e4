"""The analytic network of the reference directories: the exact posterior of a Gaussian mixture over action chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dit_policy_ros.policy.schedules import NoiseSchedule

Level = float | Tensor
"""A number, one per sample (B,), or one per token (B, H)."""


@dataclass(frozen=True)
class GaussianMixture:
    """Actions drawn from one of J isotropic Gaussians; the observation tilts their weights."""

    means: Tensor
    """(J, H, A)."""
    deviations: Tensor
    """(J,)."""
    logits: Tensor
    """(J,)."""
    condition: Tensor | None = None
    """(J, observation width), or None."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor], name: str) -> GaussianMixture:
        """Reads ``<name>.means``, ``.stds``, ``.logits`` and, where it exists, ``.cond``."""
        return cls(
            arrays[f"{name}.means"], arrays[f"{name}.stds"], arrays[f"{name}.logits"], arrays.get(f"{name}.cond")
        )

    def posterior(self, x: Tensor, alpha: Level, sigma: Level, observation: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the expected action and noise given ``x = alpha action + sigma noise``, each (B, H, A).

        In float64, as the references were made: a noise prediction is amplified a thousandfold at the noisiest step.
        """
        dtype, x = x.dtype, x.double()
        alpha, sigma = _per_token(alpha), _per_token(sigma)
        means, deviations = self.means.double().unsqueeze(1), self.deviations.double().view(-1, 1, 1, 1)
        variance = sigma**2 + alpha**2 * deviations**2
        difference = x.unsqueeze(0) - alpha * means
        likelihood = -0.5 * (difference**2 / variance + variance.log()).expand(-1, *x.shape).sum((-1, -2))
        weights = self.logits.double().unsqueeze(1).expand_as(likelihood)
        if self.condition is not None and observation is not None:
            weights = weights + self.condition.double() @ observation.double().flatten(1).T
        share = torch.softmax(weights + likelihood, 0)[..., None, None]
        action = (share * (means + alpha * deviations**2 / variance * difference)).sum(0)
        noise = (share * (sigma / variance * difference)).sum(0)
        return action.to(dtype), noise.to(dtype)

    def predict(self, x: Tensor, alpha_bar: Level, observation: Tensor | None, prediction: str = "epsilon") -> Tensor:
        """Returns what a variance-preserving network would predict: 'epsilon', 'sample' or 'v'."""
        alpha, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        action, noise = self.posterior(x, alpha, sigma, observation)
        if prediction == "v":
            return (_per_token(alpha) * noise - _per_token(sigma) * action).to(x.dtype)
        return action if prediction == "sample" else noise

    def velocity(self, x: Tensor, t: float, observation: Tensor | None) -> Tensor:
        """Returns the flow-matching velocity at flow time ``t``, 0 noise to 1 action."""
        action, noise = self.posterior(x, t, 1.0 - t, observation)
        return action - noise


def _per_token(level: Level) -> Tensor:
    level = torch.as_tensor(level, dtype=torch.float64)
    return level.reshape(*level.shape, *(1,) * (3 - level.ndim))


def alpha_bars(schedule: NoiseSchedule, levels: Tensor) -> Tensor:
    """Returns abar of every entry of a tensor of diffusion steps."""
    return torch.tensor(schedule.alphas_cumprod, dtype=torch.float64)[levels].float()


def final_level(schedule: NoiseSchedule, parameters: Mapping[str, object]) -> float:
    """Returns abar below step 0 as the ``set_alpha_to_one`` parameter asks."""
    return 1.0 if parameters.get("set_alpha_to_one", True) else schedule.alphas_cumprod[0]


def noise_ratio(alpha_bar: float) -> float:
    """Returns sigma over alpha."""
    return math.sqrt((1.0 - alpha_bar) / alpha_bar)
