"""Samplers that carry a chunk from one query to the next: the rolling buffer and the warm start."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.samplers import ddim, ddpm
from dit_policy_ros.policy.samplers.streaming import (
    Buffer,
    Layout,
    ddim_tokens,
    ddpm_tokens,
    noised,
    query,
    started_at_zero,
    started_denoised,
)
from dit_policy_ros.policy.samplers.warm_start import advanced, next_guess, snapped
from dit_policy_ros.policy.schedules import squared_cosine

SCHEDULE = squared_cosine(12)
LAYOUT = Layout(horizon=12, observations=2, actions=4, steps=12)


def one_chunk(action):
    """Noise prediction of a policy with one possible action, any level per token."""

    def denoiser(x, levels):
        table = torch.tensor(SCHEDULE.alphas_cumprod, dtype=torch.float64)[levels.clamp(min=0)][..., None]
        return ((x - table.sqrt() * action) / (1 - table).sqrt()).to(x.dtype)

    return denoiser


@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 10), st.integers(1, 100))
def test_levels_rise_from_chunk_to_chunk(horizon, observations, actions, steps):
    chunks = (horizon - observations + 1) // actions
    if chunks < 1 or steps < chunks:
        with pytest.raises(PolicyError, match="cannot hand out"):
            Layout(horizon, observations, actions, steps)
        return
    layout = Layout(horizon, observations, actions, steps)
    assert len(layout.levels) == horizon
    assert all(a <= b for a, b in pairwise(layout.levels))
    assert layout.levels[-1] == steps - 1
    assert len(set(layout.levels)) == chunks
    assert layout.chunks * actions + layout.remainder == horizon - observations + 1


@pytest.mark.parametrize("kind", ["ddim", "ddpm"])
def test_every_query_ends_on_the_only_action(kind):
    action = torch.tensor([0.3, -0.6])
    step = ddim_tokens(SCHEDULE, 12) if kind == "ddim" else ddpm_tokens(SCHEDULE)
    buffer = started_at_zero(LAYOUT, SCHEDULE, torch.randn(2, 12, 2))
    for _ in range(5):
        actions, whole, buffer = query(buffer, LAYOUT, one_chunk(action), step, torch.randn(2, 7, 2))
        torch.testing.assert_close(actions, action.expand(2, 4, 2), atol=1e-4, rtol=0)
        assert whole.shape == (2, 12, 2)
        assert buffer.sample.shape == (2, 12, 2)
        assert buffer.levels == LAYOUT.levels


def test_a_denoised_start_is_clean_up_to_the_first_chunk():
    action = torch.tensor([0.3, -0.6])
    step = ddim_tokens(SCHEDULE, 12)
    noise, renoise = torch.randn(2, 12, 2), torch.randn(2, 7, 2)
    buffer = started_denoised(LAYOUT, SCHEDULE, one_chunk(action), step, noise, renoise)
    torch.testing.assert_close(buffer.sample[:, :5], action.expand(2, 5, 2), atol=1e-4, rtol=0)
    assert (buffer.sample[:, 5:] - action).abs().mean() > 0.1


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
def test_one_level_for_all_tokens_is_the_ordinary_ancestral_step(prediction):
    x, output, noise = torch.randn(3, 2, 12, 2)
    levels = torch.full((2, 12), 7)
    step = ddpm_tokens(SCHEDULE, prediction, 1.0, lambda x: noise)
    expected = ddpm(lambda x, t: output, x, (7,), SCHEDULE, prediction, 1.0, stride=1, step_noise=[noise])
    torch.testing.assert_close(step(x, output, levels), expected)


def test_one_level_for_all_tokens_is_the_ordinary_ddim_step():
    x, output = torch.randn(2, 2, 12, 2)
    step = ddim_tokens(SCHEDULE, 6, clip=1.0)
    expected = ddim(lambda x, t: output, x, (7,), SCHEDULE, clip=1.0, stride=2)
    torch.testing.assert_close(step(x, output, torch.full((2, 12), 7)), expected)


def test_no_noise_is_added_at_level_zero():
    x, output = torch.randn(2, 2, 12, 2)
    levels = torch.zeros(2, 12, dtype=torch.int64)
    levels[:, 6:] = 3
    first, second = (ddpm_tokens(SCHEDULE, draw=torch.randn_like)(x, output, levels) for _ in range(2))
    assert torch.equal(first[:, :6], second[:, :6])
    assert not torch.equal(first[:, 6:], second[:, 6:])


def test_clean_tokens_stay_clean_when_noised():
    clean, noise = torch.randn(2, 2, 12, 2)
    levels = Buffer(clean, (-1,) * 6 + (11,) * 6).batch_levels()
    result = noised(clean, noise, levels, SCHEDULE)
    assert torch.equal(result[:, :6], clean[:, :6])
    torch.testing.assert_close(result[:, 6:], noise[:, 6:], atol=0.1, rtol=0)


@given(st.integers(1, 8), st.integers(0, 10))
def test_a_chunk_advances_and_holds_its_last_action(horizon, steps):
    chunk = torch.arange(horizon, dtype=torch.float32)[None, :, None]
    rows = [min(i + steps, horizon - 1) for i in range(horizon)]
    assert advanced(chunk, steps)[0, :, 0].tolist() == rows
    with pytest.raises(PolicyError, match="0 and more"):
        advanced(chunk, -1)


def test_gripper_treatments():
    chunk = torch.tensor([[[0.5, 0.02, 0.4], [0.5, 0.0, -3.0]]])
    assert snapped(chunk, (1, 2)).tolist() == [[[0.5, 1.0, 1.0], [0.5, -1.0, -1.0]]]
    clip = next_guess(chunk, (2,), "clip", 10.0)
    torch.testing.assert_close(clip, torch.tensor([[[0.5, 0.02, 0.1], [0.5, 0.0, -0.1]]]))
    assert torch.equal(next_guess(chunk, (2,), "scale", 10.0), chunk)
    with pytest.raises(PolicyError, match="Available: clip, scale"):
        next_guess(chunk, (2,), "round")
