"""Every sampler on problems with a known solution: Gaussian actions, whose probability flow has a closed form."""

import inspect
import math

import numpy as np
import pytest
import torch

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy import schedules
from dit_policy_ros.policy.preconditioning import batch_scalings, precondition
from dit_policy_ros.policy.samplers import SAMPLERS, ddim, ddpm, dpm_solver, edm_heun, euler, heun, rk4
from dit_policy_ros.policy.samplers.recording import Recording

MEAN, DEVIATION = 0.7, 0.4
FINEST = 5120  # diffusion steps of the schedule of the order tests; every grid divides it
# Evenly spaced in the logarithm of signal over noise, from 10 to -2: the variable of DPM-Solver's theory.
SCHEDULE = schedules.NoiseSchedule(tuple(1 / (1 + math.exp(-2 * (10 - 12 * i / FINEST))) for i in range(FINEST)))
START = torch.linspace(-1.5, 2.0, 6, dtype=torch.float64)


def gaussian(x, alpha, sigma):
    """Expected action and noise for Gaussian actions."""
    spread = alpha**2 * DEVIATION**2 + sigma**2
    off = x - alpha * MEAN
    return MEAN + alpha * DEVIATION**2 / spread * off, sigma / spread * off


def carried(x, alpha, sigma, alpha_end, sigma_end):
    """Where the probability flow carries x: the standardised sample does not change."""
    scale = math.sqrt((alpha_end**2 * DEVIATION**2 + sigma_end**2) / (alpha**2 * DEVIATION**2 + sigma**2))
    return alpha_end * MEAN + scale * (x - alpha * MEAN)


def gaussian_denoiser(prediction="epsilon", schedule=SCHEDULE):
    def denoiser(x, step):
        alpha, sigma = math.sqrt(schedule.alpha_bar(step)), math.sqrt(1 - schedule.alpha_bar(step))
        action, noise = gaussian(x, alpha, sigma)
        return {"epsilon": noise, "sample": action, "v": alpha * noise - sigma * action}[prediction]

    return denoiser


def uniform_grid(steps):
    """From the noisiest step down, with the last step, to the clean action, as long as the others."""
    return tuple(FINEST * (i + 1) // steps - 1 for i in reversed(range(steps)))


def flow_error(function, steps):
    sample = function(lambda x, t: -2 * x, START, schedules.uniform_times(steps))
    return (sample - START * math.exp(-2)).abs().max().item()


def edm_error(function, steps):
    sigmas = tuple(3.0 * (0.1 / 3.0) ** (i / steps) for i in range(steps + 1))
    sample = function(lambda x, sigma: gaussian(x, 1, sigma)[0], START, sigmas)
    return (sample - carried(START, 1, 3.0, 1, 0.1)).abs().max().item()


def diffusion_error(function, steps):
    alpha_bar = SCHEDULE.alphas_cumprod[-1]
    start = (math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar))
    prediction = inspect.signature(function).parameters["prediction"].default
    sample = function(gaussian_denoiser(prediction), START, uniform_grid(steps), SCHEDULE)
    return (sample - carried(START, *start, 1, 0)).abs().max().item()


def ancestral_error(function, steps):
    """Ancestral steps are affine here, so the mean and variance of the samples are summed exactly, draw by draw."""
    grid, draws = uniform_grid(steps), steps
    # Row 0 has no noise, row 1 only that of the start, row 2 + j only draw j.
    start = torch.zeros(draws + 2, dtype=torch.float64)
    start[1] = 1.0
    noise = torch.zeros(draws, draws + 2, dtype=torch.float64)
    noise[torch.arange(draws), torch.arange(draws) + 2] = 1.0
    sample = function(gaussian_denoiser(), start, grid, SCHEDULE, step_noise=noise)
    variance = ((sample[1:] - sample[0]) ** 2).sum().item()
    return abs(variance - DEVIATION**2)


ERRORS = {"flow": flow_error, "edm": edm_error, "diffusion": diffusion_error}


@pytest.mark.parametrize("name", SAMPLERS)
def test_order_of_accuracy(name):
    function, order, kind = SAMPLERS[name]
    error = ancestral_error if name == "ddpm" else ERRORS[kind]
    counts = (64, 128, 256)
    errors = [error(function, steps) for steps in counts]
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -slope == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_works(name):
    function, _, kind = SAMPLERS[name]
    x = torch.randn(2, 3, 4)
    if kind == "flow":
        sample = function(lambda x, t: -x, x, (0.0, 1.0))
    elif kind == "edm":
        sample = function(lambda x, sigma: x / 2, x, (1.0, 0.0))
    else:
        sample = (
            function(lambda x, step: x / 2, x, (99,), schedules.squared_cosine(100), step_noise=[x])
            if (name == "ddpm")
            else function(lambda x, step: x / 2, x, (99,), schedules.squared_cosine(100))
        )
    assert sample.shape == x.shape
    assert torch.isfinite(sample).all()


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("name", SAMPLERS)
def test_one_possible_action_is_reached_exactly(name, steps):
    """With one action in the data the flow is straight, and every sampler ends on it."""
    function, _, kind = SAMPLERS[name]
    action = torch.randn(2, 3, 4, dtype=torch.float64)
    noise = torch.randn(2, 3, 4, dtype=torch.float64)
    if kind == "flow":
        sample = function(lambda x, t: action - noise, noise, schedules.uniform_times(steps))
    elif kind == "edm":
        sigmas = schedules.karras_sigmas(steps, 0.1, 10.0)
        sample = function(lambda x, sigma: action, action + 10 * noise, sigmas)
    else:
        grid = schedules.leading(100, steps)
        sample = function(lambda x, step: action, noise, grid, schedules.squared_cosine(100), prediction="sample")
    torch.testing.assert_close(sample, action)


@pytest.mark.parametrize(("function", "degree"), [(euler, 0), (heun, 1), (rk4, 3)])
def test_flow_samplers_integrate_polynomials_of_their_degree(function, degree):
    x = torch.zeros(1, dtype=torch.float64)

    def integral(power):
        return function(lambda x, t: torch.full_like(x, (power + 1) * t**power), x, (0.0, 0.3, 0.7, 1.0)).item()

    assert integral(degree) == pytest.approx(1.0)
    assert integral(degree + 1) != pytest.approx(1.0)


@pytest.mark.parametrize("function", [ddim, ddpm, dpm_solver])
def test_predictions_are_equivalent(function):
    schedule, x = schedules.squared_cosine(100), torch.randn(2, 3, 4, dtype=torch.float64)
    noise = torch.randn(9, 2, 3, 4, dtype=torch.float64)
    options = {"step_noise": noise} if function is ddpm else {}
    samples = [
        function(gaussian_denoiser(name, schedule), x, schedules.leading(100, 10), schedule, name, **options)
        for name in ("epsilon", "sample", "v")
    ]
    torch.testing.assert_close(samples[1], samples[0])
    torch.testing.assert_close(samples[2], samples[0])


def test_dpm_solver_of_order_one_is_ddim():
    schedule, x = schedules.squared_cosine(100), torch.randn(2, 3, 4, dtype=torch.float64)
    arguments = (gaussian_denoiser("sample", schedule), x, schedules.linspace_open(100, 7), schedule, "sample")
    torch.testing.assert_close(dpm_solver(*arguments, order=1), ddim(*arguments), rtol=0, atol=1e-6)
    assert not torch.allclose(dpm_solver(*arguments, order=2), ddim(*arguments), atol=1e-3)


@pytest.mark.parametrize("function", [ddim, ddpm, dpm_solver])
def test_clip_bounds_the_clean_action(function):
    schedule, x = schedules.squared_cosine(100), torch.randn(2, 3, 4)
    arguments = (lambda x, step: 3 * torch.ones_like(x), x, (50, 0), schedule, "sample")
    assert function(*arguments).max() == pytest.approx(3.0, abs=1e-4)
    assert function(*arguments, clip=0.5).max() == pytest.approx(0.5, abs=1e-4)


def test_recomputed_noise_differs_from_the_network_s_only_where_clipped():
    schedule, x = schedules.squared_cosine(100), torch.randn(2, 3, 4, dtype=torch.float64)
    arguments = (gaussian_denoiser("epsilon", schedule), x, schedules.leading(100, 5), schedule)
    torch.testing.assert_close(ddim(*arguments, recompute_noise=True), ddim(*arguments))


@pytest.mark.parametrize("recompute", [False, True])
def test_the_noise_of_a_clipped_step(recompute):
    schedule, x = schedules.squared_cosine(100), torch.randn(2, 3, 4, dtype=torch.float64)
    alpha, sigma = math.sqrt(schedule.alphas_cumprod[50]), math.sqrt(1 - schedule.alphas_cumprod[50])
    after, noise_after = math.sqrt(schedule.alphas_cumprod[40]), math.sqrt(1 - schedule.alphas_cumprod[40])
    noise = (x - alpha * (0.5 if recompute else 3.0)) / sigma
    options = {"clip": 0.5, "stride": 10, "recompute_noise": recompute}
    sample = ddim(lambda x, step: torch.full_like(x, 3.0), x, (50,), schedule, "sample", **options)
    torch.testing.assert_close(sample, after * 0.5 + noise_after * noise)


def test_stride_and_final_level_change_where_a_step_goes():
    schedule, x = schedules.squared_cosine(100), torch.randn(2, 3, 4, dtype=torch.float64)
    denoiser = gaussian_denoiser("epsilon", schedule)
    short = ddim(denoiser, x, (50,), schedule, stride=10)
    torch.testing.assert_close(ddim(denoiser, short, (40,), schedule), ddim(denoiser, x, (50, 40), schedule))
    noisy_end = ddim(denoiser, x, (50,), schedule, final_alpha_bar=schedule.alphas_cumprod[40])
    torch.testing.assert_close(noisy_end, short)
    mean = ddpm(denoiser, x, (50,), schedule, stride=10, step_noise=[torch.zeros_like(x)])
    assert not torch.allclose(mean, ddpm(denoiser, x, (50,), schedule, step_noise=[torch.zeros_like(x)]))


def test_variances_of_the_ancestral_step():
    schedule, x = schedules.squared_cosine(100), torch.zeros(1, dtype=torch.float64)
    ones = [torch.ones_like(x)]

    def deviation(variance, values=None):
        network = (lambda x, step: (x, values)) if values is not None else (lambda x, step: x)
        return ddpm(network, x, (50,), schedule, variance=variance, stride=10, step_noise=ones).item()

    large = math.sqrt(1 - schedule.alphas_cumprod[50] / schedule.alphas_cumprod[40])
    ratio = math.sqrt((1 - schedule.alphas_cumprod[40]) / (1 - schedule.alphas_cumprod[50]))
    assert deviation("large") == pytest.approx(large)
    assert deviation("small") == pytest.approx(large * ratio)
    assert deviation("learned", torch.ones_like(x)) == pytest.approx(large)
    assert deviation("learned", -torch.ones_like(x)) == pytest.approx(large * ratio)
    assert deviation("learned", torch.zeros_like(x)) == pytest.approx(large * math.sqrt(ratio))
    with pytest.raises(PolicyError, match="returns \\(prediction, variance values\\)"):
        deviation("learned")
    with pytest.raises(PolicyError, match="Available: large, learned, small"):
        deviation("median")


def test_a_generator_makes_ancestral_sampling_repeatable():
    schedule, x = schedules.squared_cosine(10), torch.randn(2, 3)
    denoiser, grid = gaussian_denoiser("epsilon", schedule), schedules.leading(10, 10)
    first, second = (ddpm(denoiser, x, grid, schedule, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    other = ddpm(denoiser, x, grid, schedule, generator=torch.Generator().manual_seed(4))
    assert not torch.equal(first, other)


def test_too_few_noise_draws_are_refused():
    schedule, x = schedules.squared_cosine(10), torch.randn(2, 3)
    with pytest.raises(PolicyError, match="more than the 1 noise draws"):
        ddpm(lambda x, step: x, x, (5, 4, 0), schedule, step_noise=[x])


def test_ancestral_samples_have_the_right_spread():
    schedule = schedules.squared_cosine(100)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, generator=generator)
    sample = ddpm(gaussian_denoiser("epsilon", schedule), x, schedules.leading(100, 100), schedule, generator=generator)
    assert sample.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert sample.std().item() == pytest.approx(DEVIATION, abs=0.02)


@pytest.mark.parametrize("name", SAMPLERS)
def test_bad_grids_are_refused(name):
    function, _, kind = SAMPLERS[name]
    x, schedule = torch.zeros(1), schedules.squared_cosine(100)
    bad = {
        "flow": [(), (0.5,), (1.0, 0.0), (0.0, 0.0)],
        "edm": [(), (1.0,), (0.0, 1.0), (1.0, -1.0)],
        "diffusion": [(), (0, 10), (10, 10), (10, -1)],
    }[kind]
    rest = (schedule,) if kind == "diffusion" else ()
    for grid in bad:
        with pytest.raises(PolicyError, match="must be"):
            function(lambda x, t: x, x, grid, *rest)


def test_unknown_options_name_the_known_ones():
    schedule, x = schedules.squared_cosine(10), torch.zeros(1)
    with pytest.raises(PolicyError, match="Available: epsilon, sample, v"):
        ddim(lambda x, step: x, x, (5,), schedule, prediction="noise")
    with pytest.raises(PolicyError, match="Available: 1, 2"):
        dpm_solver(lambda x, step: x, x, (5,), schedule, order=3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_networks_are_given_plain_numbers_and_no_gradient(name):
    function, _, kind = SAMPLERS[name]
    x, recording = torch.randn(1, 2, requires_grad=True), Recording()
    network = recording.wrap(lambda x, t: x / 2)
    grids = {"flow": (0.0, 0.5, 1.0), "edm": (1.0, 0.5, 0.0), "diffusion": (9, 4, 0)}
    rest = (schedules.squared_cosine(10),) if kind == "diffusion" else ()
    sample = function(network, x, grids[kind], *rest)
    assert not sample.requires_grad
    assert {type(time) for time in recording.times} == {int if kind == "diffusion" else float}
    assert recording.trajectory(sample).shape == (len(recording.inputs) + 1, 1, 2)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 80.0])
def test_preconditioning_keeps_unit_variance_in_and_out(sigma):
    skip, out, into = (part.item() for part in batch_scalings(torch.tensor([sigma]), 0.5))
    assert into * math.sqrt(0.25 + sigma**2) == pytest.approx(1.0)
    # The network's target, (action - skip * x) / out, has unit variance too.
    assert ((1 - skip) ** 2 * 0.25 + (skip * sigma) ** 2) / out**2 == pytest.approx(1.0, rel=1e-5)


def test_a_preconditioned_perfect_network_samples_its_data():
    def network(scaled, sigma):
        c = batch_scalings(torch.tensor([sigma]), 0.5, scaled.dtype)
        x = scaled / c.into
        return (gaussian(x, 1, sigma)[0] - c.skip * x) / c.out

    sigmas = schedules.karras_sigmas(160, 0.002, 80.0)
    x = 80.0 * START[:, None, None]
    sample = edm_heun(precondition(network, 0.5), x, sigmas)
    torch.testing.assert_close(sample, carried(x, 1, 80.0, 1, 0), atol=1e-3, rtol=0)
