"""Half precision: a released network may be stored in bfloat16, and the noise level must survive it."""

import copy

import pytest
import torch
from family_checks import inputs, network

CALLS = {
    "lerobot_multi_task_dit": ("denoise_middle_t", ("conditioning",), ("noisy_actions", "timesteps")),
    "diffusion_policy_transformer": ("denoise_t53", ("cond",), ("noisy_actions", "timesteps")),
    "mode": ("denoise_high", ("state_images", "goal"), ("x", "sigma")),
    "mdt": ("denoise_high", ("static", "gripper", "goal"), ("x", "sigma")),
    "mdtv": ("denoise_high", ("state_images", "goal"), ("x", "sigma")),
    "uwm": ("denoise_mixed", ("cond",), ("noisy_action", "action_t", "noisy_next_obs", "next_obs_t")),
}
TIMES = ("timesteps", "sigma", "action_t", "next_obs_t")


@pytest.mark.parametrize("family", CALLS)
def test_bfloat16_stays_near_float32(family):
    case, slow, fast = CALLS[family]
    half = copy.deepcopy(network(family)).bfloat16()
    given = inputs(family, case)

    def run(net, dtype):
        cast = {name: value if name in TIMES else value.to(dtype) for name, value in given.items()}
        output = net(net.encode(*(cast[name] for name in slow)), *(cast[name] for name in fast))
        return output[0] if isinstance(output, tuple) else output

    exact, rounded = run(network(family), torch.float32), run(half, torch.bfloat16)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).abs().mean() < 0.1 * exact.abs().mean()
