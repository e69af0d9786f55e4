"""Samplers: free functions from a denoiser or velocity, a start and a time grid to a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from dit_policy_ros.policy.samplers.ddim import ddim
from dit_policy_ros.policy.samplers.ddpm import ddpm
from dit_policy_ros.policy.samplers.dpm_solver import dpm_solver
from dit_policy_ros.policy.samplers.edm import edm_ddim, edm_euler, edm_heun
from dit_policy_ros.policy.samplers.flow import euler, heun, rk4


class Sampler(NamedTuple):
    """One entry of :data:`SAMPLERS`."""

    function: Callable[..., Tensor]
    order: int
    """Order of accuracy in the number of steps; that of ``ddpm`` is of the mean and variance of its samples."""
    kind: str
    """'flow' (velocity, x, times), 'edm' (denoiser, x, sigmas) or 'diffusion' (denoiser, x, timesteps, schedule)."""


SAMPLERS: dict[str, Sampler] = {
    "euler": Sampler(euler, 1, "flow"),
    "heun": Sampler(heun, 2, "flow"),
    "rk4": Sampler(rk4, 4, "flow"),
    "ddim": Sampler(ddim, 1, "diffusion"),
    "ddpm": Sampler(ddpm, 1, "diffusion"),
    "dpm_solver": Sampler(dpm_solver, 2, "diffusion"),
    "edm_euler": Sampler(edm_euler, 1, "edm"),
    "edm_ddim": Sampler(edm_ddim, 1, "edm"),
    "edm_heun": Sampler(edm_heun, 2, "edm"),
}
