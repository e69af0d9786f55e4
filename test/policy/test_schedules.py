import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy import schedules

GRIDS = (schedules.leading, schedules.trailing, schedules.linspace, schedules.linspace_open)


@given(st.integers(2, 1000), st.data())
def test_every_grid_descends_within_the_schedule(train_steps, data):
    steps = data.draw(st.integers(1, train_steps - 1))
    for grid in GRIDS:
        times = grid(train_steps, steps)
        assert len(times) == steps
        assert all(a > b for a, b in pairwise(times))
        assert 0 <= times[-1] <= times[0] < train_steps


@pytest.mark.parametrize(
    ("grid", "steps", "expected"),
    [
        (schedules.leading, 4, (75, 50, 25, 0)),
        (schedules.trailing, 4, (99, 74, 49, 24)),
        (schedules.linspace, 4, (99, 66, 33, 0)),
        (schedules.linspace_open, 4, (99, 74, 50, 25)),
        (schedules.strided, 4, (75, 50, 25, 0)),
        (schedules.strided, 3, (68, 34, 0)),
        (schedules.strided, 1, (50,)),
        (schedules.linspace, 1, (99,)),
    ],
)
def test_grids_of_a_hundred_steps(grid, steps, expected):
    assert grid(100, steps) == expected


def test_the_grid_of_rdt():
    assert schedules.linspace_open(1000, 5) == (999, 799, 599, 400, 200)


def test_the_single_step_of_the_strided_grid_is_number_fifty_however_many_were_trained():
    assert schedules.strided(1000, 1) == (50,)
    with pytest.raises(PolicyError, match=r"gives 1 of 50 .* allowed are 2, 3"):
        schedules.strided(50, 1)


def test_a_grid_that_no_stride_gives_names_those_that_can_be():
    with pytest.raises(PolicyError, match=r"gives 30 of 100 .* allowed are 1, 2, 3, 4, 5"):
        schedules.strided(100, 30)


@pytest.mark.parametrize("grid", [*GRIDS, schedules.strided])
@pytest.mark.parametrize("steps", [0, 101])
def test_more_steps_than_trained_are_refused(grid, steps):
    with pytest.raises(PolicyError, match="allowed are 1 to"):
        grid(100, steps)


def test_single_precision_is_off_by_a_hundred_thousandth_at_the_noisiest_step():
    single, double = schedules.squared_cosine(100), schedules.squared_cosine(100, single_precision=False)
    assert single.alphas_cumprod[-1] == pytest.approx(double.alphas_cumprod[-1], rel=2e-5)
    assert single.alphas_cumprod[-1] != pytest.approx(double.alphas_cumprod[-1], rel=5e-6)


def test_betas_are_recovered():
    assert schedules.linear(50, 1e-4, 0.02, False).betas == pytest.approx([1e-4 + 0.0199 * i / 49 for i in range(50)])
    roots = [math.sqrt(beta) for beta in schedules.scaled_linear(50, 1e-4, 0.04, False).betas]
    assert roots == pytest.approx([0.01 + 0.19 * i / 49 for i in range(50)])
    assert max(schedules.squared_cosine(50, cap=0.5, single_precision=False).betas) == pytest.approx(0.5)


def test_levels_outside_the_schedule():
    schedule = schedules.linear(10)
    assert schedule.alpha_bar(-1) == 1.0
    assert schedule.alpha_bar(-1, final=0.5) == 0.5
    with pytest.raises(PolicyError, match="allowed are 0 to 9"):
        schedule.alpha_bar(10)
    with pytest.raises(PolicyError, match="between 0 and 1"):
        schedules.NoiseSchedule((0.5, 1.0))


@given(st.integers(1, 40), st.floats(1e-3, 1.0), st.floats(2.0, 100.0), st.floats(1.0, 10.0))
def test_noise_levels_run_from_the_largest_to_zero(steps, low, high, rho):
    for sigmas in (
        schedules.exponential_sigmas(steps, low, high),
        schedules.karras_sigmas(steps, low, high, rho),
    ):
        assert len(sigmas) == steps + 1
        assert sigmas[0] == pytest.approx(high)
        assert sigmas[-1] == 0.0
        assert all(a > b for a, b in pairwise(sigmas))
        if steps > 1:
            assert sigmas[-2] == pytest.approx(low)


@given(st.integers(1, 40), st.floats(0.3, 5.0))
def test_flow_times_run_from_noise_to_action(steps, shift):
    assert schedules.uniform_times(steps) == tuple(i / steps for i in range(steps + 1))
    times = schedules.shifted_times(steps, shift)
    assert len(times) == steps + 1
    assert times[0] == pytest.approx(0.0, abs=1e-12)
    assert times[-1] == 1.0
    assert all(a < b for a, b in pairwise(times))


def test_a_shift_above_one_stays_longer_in_the_noise():
    assert schedules.shifted_times(4, 3.0)[2] < schedules.shifted_times(4, 1.0)[2]
