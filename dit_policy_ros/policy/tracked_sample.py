"""EADP around any family that diffuses actions: DDIM over its own diffusion steps, whatever its own sampler is."""

from __future__ import annotations

import torch
from torch import Tensor

from dit_policy_ros.actions.channels import JointChannels
from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.bindings.binding import Binding, FamilyPolicyConfig, generator_of
from dit_policy_ros.policy.guidance.classifier_free import Network
from dit_policy_ros.policy.guidance.tracking import Gradient, tracking_ddim


def check_trackable(config: FamilyPolicyConfig, binding: Binding) -> None:
    """Refuses families whose sample cannot be moved between two steps of DDIM.

    Raises:
        PolicyError: it does not diffuse, denoises more than actions, or moves hands.
    """
    if binding.diffusion is None:
        raise PolicyError("'tracking' is for families with diffusion steps; this one has flow times or noise levels.")
    if not binding.alone:
        raise PolicyError("'tracking' is for families that denoise actions alone; this one denoises more with them.")
    if not isinstance(config.actions, JointChannels):
        raise PolicyError("'tracking' knows the speed of joints; actions of space 'end_effector' have none.")


def tracked_sample(
    network: Network, noise: Tensor, binding: Binding, gradient: Gradient, scale: float, repeats: int
) -> Tensor:
    """Returns normalised actions (1, H, A) that a tracking cost has bent; see ``guidance.tracking``.

    Args:
        network: guided denoiser of an observation.
        noise: (1, H, A) standard normal; settles the draws between repeats too.
        gradient: of the cost, clipped.
    """
    own = binding.diffusion
    draws = torch.randn((repeats - 1) * len(own.timesteps), *noise.shape, generator=generator_of(noise)).to(noise)
    return tracking_ddim(
        network, noise, own.timesteps, own.schedule, gradient, scale, binding.predicts, own.clip, None, draws, repeats
    )
