import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.guidance.classifier_free import adaptive_classifier_free, classifier_free
from dit_policy_ros.policy.guidance.composition import composed
from dit_policy_ros.policy.guidance.prefix import (
    diffusion_corruption,
    edm_corruption,
    flow_corruption,
    inpainted,
    overwritten,
)
from dit_policy_ros.policy.guidance.real_time import MASKS, correction, guidance_weight, prefix_weights, real_time
from dit_policy_ros.policy.guidance.tracking import clipped, rate_gradient, tracking_ddim, tracking_refinement
from dit_policy_ros.policy.samplers import ddim, edm_ddim, euler, heun, rk4
from dit_policy_ros.policy.samplers.recording import Recording
from dit_policy_ros.policy.schedules import karras_sigmas, leading, squared_cosine, uniform_times

B, H, A = 2, 6, 3
SCHEDULE = squared_cosine(100)


def constant(value, calls=None):
    def network(x, time):
        if calls is not None:
            calls.append(time)
        return torch.full_like(x, value)

    return network


def test_classifier_free_guidance_extrapolates():
    x = torch.zeros(B, H, A)
    assert classifier_free(constant(2.0), constant(1.0), 1.5)(x, 0).unique().item() == 2.5
    assert classifier_free(constant(2.0), constant(1.0), 0.0)(x, 0).unique().item() == 1.0


def test_a_scale_of_one_never_runs_the_unconditional_network():
    calls = []
    assert classifier_free(constant(2.0), constant(1.0, calls), 1.0)(torch.zeros(B, H, A), 0).unique().item() == 2.0
    assert calls == []


def test_adaptive_guidance_stops_once_the_networks_agree():
    calls, direction = [], torch.randn(B, H, A)

    def unconditional(x, time):
        calls.append(time)
        return direction + (1 - time) * torch.randn(B, H, A)

    guided = adaptive_classifier_free(lambda x, time: direction, unconditional, 2.0, threshold=0.999)
    for time in (0.0, 0.5, 1.0, 1.0):
        last = guided(torch.zeros(B, H, A), time)
    assert calls == [0.0, 0.5, 1.0]
    assert torch.equal(last, direction)


def test_adaptive_guidance_waits_for_the_whole_batch():
    calls = []

    def unconditional(x, time):
        calls.append(time)
        return torch.stack([torch.ones(H, A), -torch.ones(H, A)])

    guided = adaptive_classifier_free(constant(1.0), unconditional, 2.0, threshold=0.9)
    guided(torch.zeros(2, H, A), 0)
    guided(torch.zeros(2, H, A), 1)
    assert calls == [0, 1]


def test_composition_weighs_policies_and_needs_a_weight_each():
    x = torch.zeros(B, H, A)
    assert composed([constant(1.0), constant(3.0)], [0.25, 0.75])(x, 0).unique().item() == 2.5
    only = torch.randn(B, H, A)
    assert torch.equal(composed([lambda x, t: only], [1.0])(x, 0), only)
    with pytest.raises(PolicyError, match="2 policies and 1 weights"):
        composed([constant(1.0), constant(2.0)], [1.0])
    with pytest.raises(PolicyError, match="one weight to each"):
        composed([], [])


@given(st.integers(1, 60), st.integers(0, 60), st.integers(-3, 70), st.sampled_from(MASKS))
def test_prefix_weights_fall_from_one_to_zero(horizon, delay, end, mask):
    weights = prefix_weights(horizon, delay, end, mask)
    assert len(weights) == horizon
    assert all(0 <= weight <= 1 for weight in weights)
    assert all(a >= b for a, b in pairwise(weights))
    assert all(weight == 1 for weight in weights[: max(min(delay, end), 0)])
    assert all(weight == 0 for weight in weights[max(end, 0) :])


def test_prefix_weights_of_the_paper_s_example():
    assert prefix_weights(10, 2, 6, "linear") == pytest.approx((1, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5, 0, 0, 0, 0))
    exponential = prefix_weights(10, 2, 6, "exp")
    assert all(a < b for a, b in zip(exponential[2:6], prefix_weights(10, 2, 6, "linear")[2:6], strict=True))
    with pytest.raises(PolicyError, match="Available: exp, linear, ones, zeros"):
        prefix_weights(10, 2, 6, "cosine")


@given(st.floats(0.0, 1.0), st.floats(2.0, 20.0))
def test_guidance_weight_is_bounded_and_symmetric(t, beta):
    assert 2.0 <= guidance_weight(t, beta) <= beta
    assert guidance_weight(t, beta) == pytest.approx(guidance_weight(1.0 - t, beta), rel=1e-6)
    assert guidance_weight(0.5, beta) == 2.0


def modes(x, t, spread=0.05):
    """Exact velocity for actions at +1 or -1."""
    variance = (1 - t) ** 2 + t**2 * spread**2
    share = torch.tanh(t * x / variance)
    actions = share + t * spread**2 / variance * (x - t * share)
    return (actions - x) / (1 - t)


def guided_modes(jacobian, bound, steps=5, count=4000):
    noise = torch.randn(count, 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    velocity = real_time(modes, torch.ones_like(noise), torch.ones(1, dtype=noise.dtype), 5.0, jacobian, bound)
    return euler(velocity, noise, uniform_times(steps))


def test_guidance_brings_most_chunks_to_the_previous_mode():
    noise = torch.randn(4000, 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert (euler(modes, noise, uniform_times(5)) > 0).double().mean().item() == pytest.approx(0.5, abs=0.05)
    for jacobian in ("exact", "identity"):
        assert (guided_modes(jacobian, None) > 0).double().mean().item() > 0.9


def test_the_exact_jacobian_shoots_off_unless_bounded():
    assert guided_modes("exact", None).abs().max().item() > 2.0
    bounded = guided_modes("exact", 1.2)
    assert bounded.abs().max().item() <= 1.2 + 1e-12
    assert (bounded > 0).double().mean().item() > 0.9


@pytest.mark.parametrize("sampler", [euler, heun, rk4])
def test_the_bound_leaves_chunks_inside_it_alone(sampler):
    x, target = torch.randn(B, H, A, dtype=torch.float64), torch.full((B, H, A), 0.3, dtype=torch.float64)
    weights = torch.tensor(prefix_weights(H, 2, 4), dtype=torch.float64)
    velocity = lambda x, t: target - 0.5 * x  # noqa: E731
    free, bounded = (real_time(velocity, target, weights, 5.0, "identity", bound) for bound in (None, 50.0))
    torch.testing.assert_close(sampler(bounded, x, uniform_times(5)), sampler(free, x, uniform_times(5)))


def test_the_exact_correction_is_the_vector_jacobian_product():
    matrix = torch.randn(H * A, H * A, dtype=torch.float64)
    x, previous = torch.randn(2, B, H, A, dtype=torch.float64)
    weights = torch.linspace(1, 0, H, dtype=torch.float64)
    parts = correction(lambda x, t: (x.flatten(1) @ matrix.T).view_as(x), x, 0.3, previous, weights)
    jacobian = torch.eye(H * A, dtype=torch.float64) + 0.7 * matrix
    torch.testing.assert_close(parts.correction, (parts.error.flatten(1) @ jacobian).view_as(x))


def test_the_identity_form_needs_no_gradient_and_unknown_forms_are_refused():
    x, weights = torch.randn(B, H, A), torch.ones(H)
    with torch.inference_mode():
        parts = correction(constant(0.0), x, 0.5, torch.zeros_like(x), weights, "identity")
    assert torch.equal(parts.correction, parts.error)
    with pytest.raises(PolicyError, match="Available: exact, identity"):
        correction(constant(0.0), x, 0.5, torch.zeros_like(x), weights, "numeric")


def test_rows_without_a_counterpart_may_hold_anything():
    previous = torch.zeros(B, H, A)
    previous[:, 4:] = torch.nan
    guided = real_time(constant(0.0), previous, torch.tensor(prefix_weights(H, 2, 4)), 5.0, "identity")
    sample = euler(guided, torch.randn(B, H, A), uniform_times(3))
    assert torch.isfinite(sample).all()


def test_zero_weights_are_the_plain_sample():
    x = torch.randn(B, H, A)
    velocity = lambda x, t: torch.sin(x)  # noqa: E731
    guided = real_time(velocity, torch.ones_like(x), torch.tensor(prefix_weights(H, 2, 0)))
    torch.testing.assert_close(euler(guided, x, uniform_times(4)), euler(velocity, x, uniform_times(4)))


def chain(x, alpha, sigma, spread=0.05):
    """Exact posterior for chunks whose rows are all the same standard normal number, up to a small spread."""
    prior = torch.ones(H, H, dtype=x.dtype) + spread**2 * torch.eye(H, dtype=x.dtype)
    gain = alpha * prior @ torch.linalg.inv(alpha**2 * prior + sigma**2 * torch.eye(H, dtype=x.dtype))
    return gain @ x


KINDS = {
    "flow": (
        lambda network, x: euler(network, x, uniform_times(20)),
        lambda x, t: (chain(x, t, 1 - t) - x) / (1 - t),
        flow_corruption,
        1.0,
    ),
    "edm": (
        lambda network, x: edm_ddim(network, x, karras_sigmas(20, 0.01, 20.0)),
        lambda x, sigma: chain(x, 1.0, sigma),
        edm_corruption,
        20.0,
    ),
    "diffusion": (
        lambda network, x: ddim(network, x, leading(100, 20), SCHEDULE, "sample"),
        lambda x, step: chain(x, *diffusion_corruption(SCHEDULE)(step)),
        diffusion_corruption(SCHEDULE),
        1.0,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_hard_prefix_is_kept_exactly_and_the_rest_follows_it(kind):
    sample, network, corruption, scale = KINDS[kind]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(64, H, 1, generator=generator, dtype=torch.float64)
    known = torch.full_like(noise, 1.5)
    mask = torch.arange(H)[:, None] < 4
    recording = Recording()
    guided = inpainted(recording.wrap(network), known, mask, noise, corruption)
    chunk = overwritten(sample(guided, scale * noise), known, mask)
    assert torch.equal(chunk[:, :4], known[:, :4])
    free = sample(network, scale * noise)
    assert (chunk[:, 4:] - 1.5).abs().mean() < 0.5 * (free[:, 4:] - 1.5).abs().mean()
    for seen, time in zip(recording.inputs, recording.times, strict=True):
        alpha, sigma = corruption(time)
        torch.testing.assert_close(seen[:, :4], (alpha * known + sigma * noise)[:, :4])


def test_a_network_trained_on_clean_prefixes_sees_them_clean():
    known, x, recording = torch.ones(B, H, A), torch.randn(B, H, A), Recording()
    mask = torch.arange(H)[:, None] < 2
    euler(inpainted(recording.wrap(constant(0.0)), known, mask), x, uniform_times(3))
    assert all(torch.equal(seen[:, :2], known[:, :2]) for seen in recording.inputs)
    assert all(torch.equal(seen[:, 2:], x[:, 2:]) for seen in recording.inputs)


def test_clipped_gradients_keep_their_direction_and_other_channels():
    gradient = torch.randn(H, A + 1)
    short = clipped(gradient, [(slice(0, 3), 0.05)])
    assert (short[:, :3].norm(dim=1) <= 0.05 + 1e-6).all()
    torch.testing.assert_close(torch.cosine_similarity(short[:, :3], gradient[:, :3]), torch.ones(H))
    assert torch.equal(short[:, 3:], gradient[:, 3:])
    assert torch.allclose(clipped(1e-3 * gradient, [(slice(0, 3), 0.05)]), 1e-3 * gradient)


def test_the_rate_gradient_is_that_of_its_cost():
    chunk, start = torch.randn(B, H, A, dtype=torch.float64, requires_grad=True), torch.randn(B, A, dtype=torch.float64)
    change = torch.diff(torch.cat([start[:, None], chunk], 1), dim=1)
    cost = ((change.abs() - 0.5).clamp(min=0) ** 2).sum()
    (expected,) = torch.autograd.grad(cost, chunk)
    torch.testing.assert_close(rate_gradient(chunk.detach(), start, torch.tensor(0.5)), expected)


def follow(x, step):
    """Predicts the noise for one possible chunk, a large jump."""
    alpha, sigma = diffusion_corruption(SCHEDULE)(step)
    return (x - alpha * 0.8) / sigma


def test_tracking_guidance_off_is_ddim_and_on_lowers_the_cost():
    x, grid = torch.randn(1, H, A), leading(100, 10)
    plain = ddim(follow, x, grid, SCHEDULE)
    off = tracking_ddim(follow, x, grid, SCHEDULE, lambda x: pytest.fail("asked for a gradient"), 0.0)
    assert torch.equal(off, plain)
    # A broad policy: what it expects is half of what it sees.
    broad = lambda x, step: x * diffusion_corruption(SCHEDULE)(step)[1]  # noqa: E731
    free = ddim(broad, x, grid, SCHEDULE)
    bent = tracking_ddim(broad, x, grid, SCHEDULE, lambda x: 0.1 * x, 1.5)
    assert bent.abs().mean() < free.abs().mean()


def test_repeats_and_refinement_use_the_noise_they_are_given():
    x, grid = torch.randn(1, H, A), leading(100, 4)
    renoise = torch.randn(4, 1, H, A)
    recording = Recording()
    arguments = (recording.wrap(lambda x, step: 0.5 * x), x, grid, SCHEDULE, lambda x: x, 0.1)
    first = tracking_ddim(*arguments, renoise=renoise, repeats=2)
    assert recording.times == [75, 75, 50, 50, 25, 25, 0, 0]
    assert torch.equal(first, tracking_ddim(*arguments, renoise=renoise, repeats=2))
    assert not torch.equal(first, tracking_ddim(*arguments, renoise=-renoise, repeats=2))
    seen = Recording()
    refined = tracking_refinement(seen.wrap(follow), x, 25, SCHEDULE, torch.zeros_like, 1.0, renoise[:2])
    torch.testing.assert_close(refined, torch.full_like(x, 0.8), atol=1e-4, rtol=0)
    level = SCHEDULE.alpha_bar(8)
    torch.testing.assert_close(seen.inputs[0], math.sqrt(level) * x + math.sqrt(1 - level) * renoise[0] / 4)
    assert seen.times == [25, 25]
