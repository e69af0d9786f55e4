"""Seams, second differences and the spectral arc length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dit_policy_ros.actions.smoothness import (
    MOVING_RAD_S,
    arms_of,
    cosine,
    seam_of,
    second_difference,
    spectral_arc_length,
)
from dit_policy_ros.robot import load_robot
from dit_policy_ros.types import ActionChunk

MS = 1_000_000
STEP = 20 * MS


def line(start_ns, at, speed, count=20, committed=0, names=("a", "b")):
    actions = at + speed * 1e-9 * (np.arange(count)[:, None] * STEP)
    return ActionChunk(names, start_ns, STEP, actions * np.ones((1, 2)), start_ns, 0, 1, committed)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-2, 2))
def test_a_seam_is_the_distance_and_the_change_of_speed(offset, before, after):
    plan, chunk = line(0, 0.0, before), line(100 * MS, 0.1 * before + offset, after)
    seam = seam_of(plan, chunk, 100 * MS)
    np.testing.assert_allclose(seam.position, abs(offset), atol=1e-9)
    np.testing.assert_allclose(seam.velocity, abs(after - before), atol=1e-7)
    assert seam.delay_ns == 0
    np.testing.assert_allclose(seam.step, abs(after) * 0.02, atol=1e-9)
    np.testing.assert_allclose(seam.second_difference, 0.0, atol=1e-9)


def test_the_momentum_tells_a_step_back():
    assert seam_of(line(0, 0.0, 1.0), line(60 * MS, 0.06, -1.0), 60 * MS).momentum == pytest.approx(-1.0)
    assert seam_of(line(0, 0.0, 1.0), line(60 * MS, 0.06, 2.0), 60 * MS).momentum == pytest.approx(1.0)
    assert np.isnan(seam_of(line(0, 0.0, 0.0), line(60 * MS, 0.0, 1.0), 60 * MS).momentum)
    assert np.isnan(cosine(np.array([1e-4, 0.0]), np.ones(2)))


def moving(start_ns, at, speeds, count=20, names=("a", "b")):
    actions = np.asarray(at) + np.outer(1e-9 * STEP * np.arange(count), speeds)
    return ActionChunk(names, start_ns, STEP, actions, start_ns, 0, 1)


def test_an_arm_steps_back_where_it_turns_or_jumps_back_and_not_where_it_hardly_moves():
    plan, faster = moving(0, (0.0, 0.0), (1.0, 1.0)), moving(60 * MS, (0.06, 0.06), (2.0, 1.0))
    turned, behind = (moving(60 * MS, at, v) for at, v in (((0.06, 0.06), (-1.0, -1.0)), ((0.0, 0.0), (1.0, 1.0))))
    assert seam_of(plan, faster, 60 * MS).steps_back == 0.0
    assert seam_of(plan, turned, 60 * MS).steps_back == 1.0
    # A chunk from its first action on, as the naive switch does it: the same speed, from where the arms were before.
    naive = seam_of(plan, behind, 60 * MS)
    assert (naive.momentum, naive.steps_back) == (pytest.approx(1.0), 1.0)
    assert np.isnan(seam_of(None, turned, 60 * MS).steps_back)


@given(st.floats(0.01, 3.0), st.floats(0.01, 3.0))
def test_both_speeds_decide_whether_turning_round_is_a_step_back(before, after):
    plan, chunk = moving(0, (0.0, 0.0), (before, 0.0)), moving(60 * MS, (0.06 * before, 0.0), (-after, 0.0))
    seam = seam_of(plan, chunk, 60 * MS)
    assume(abs(before - MOVING_RAD_S) > 1e-6 < abs(after - MOVING_RAD_S))
    assert seam.steps_back == float(min(before, after) > MOVING_RAD_S)
    assert np.isnan(seam.momentum) == (seam.steps_back == 0.0)


def test_one_arm_that_steps_back_is_not_hidden_by_the_other_and_grippers_do_not_count():
    plan = moving(0, (0.0, 0.0), (1.2, 6.0))
    chunk = moving(60 * MS, (0.072, 0.36), (-1.2, 6.0))
    together, apart = (seam_of(plan, chunk, 60 * MS, arms) for arms in ((), (("a",), ("b",))))
    assert (together.steps_back, together.momentum > 0.9) == (0.0, True)
    assert (apart.steps_back, apart.momentum) == (1.0, pytest.approx(-1.0))
    assert seam_of(plan, chunk, 60 * MS, (("b",),)).steps_back == 0.0
    left, right = arms_of(load_robot("aloha"))
    assert (len(left), len(right)) == (6, 6)
    assert not any("gripper" in name for name in (*left, *right))


def test_names_not_places_match_channels():
    plan = ActionChunk(("b", "a"), 0, STEP, np.tile([2.0, 1.0], (20, 1)))
    chunk = ActionChunk(("a", "b"), 100 * MS, STEP, np.tile([1.0, 2.5], (20, 1)))
    np.testing.assert_allclose(seam_of(plan, chunk, 100 * MS).position, [0.0, 0.5])


def test_a_kink_behind_the_committed_actions_is_part_of_the_seam():
    chunk = line(100 * MS, 0.1, 1.0, committed=4)
    chunk.actions[4:] = chunk.actions[3] - 1e-9 * STEP * np.arange(1, 17)[:, None]
    early, late = (seam_of(line(0, 0.0, 1.0), chunk, now_ns) for now_ns in (100 * MS, 190 * MS))
    np.testing.assert_allclose(early.position, 0.0, atol=1e-9)
    np.testing.assert_allclose(early.velocity, 2.0, atol=1e-6)
    assert (early.steps_back, early.momentum) == (1.0, pytest.approx(-1.0))
    assert late.delay_ns == 90 * MS


def test_the_first_chunk_joins_nothing():
    seam = seam_of(None, line(0, 0.0, 1.0), 40 * MS)
    assert np.isnan(seam.position).all()
    assert np.isnan(seam.momentum)
    assert seam.delay_ns == 40 * MS


def test_second_differences_are_of_accelerations():
    t = 0.02 * np.arange(30)[:, None]
    np.testing.assert_allclose(second_difference(0.5 * 3.0 * t**2), 3.0 * 0.02**2)
    assert second_difference(np.ones((2, 3))).tolist() == [0.0, 0.0, 0.0]


def test_jerky_motion_has_a_longer_spectrum():
    t = np.linspace(0.0, 2.0, 101)
    bell = np.exp(-(((t - 1.0) / 0.3) ** 2))
    shaken = bell * (1.0 + 0.5 * np.sin(2 * np.pi * 6.0 * t))
    smooth, jerky = (spectral_arc_length(speed, 0.02) for speed in (bell, shaken))
    assert -1.7 < smooth < -1.3, "a bell of one mode is about -1.4 in the paper"
    assert jerky < smooth - 0.2
    assert spectral_arc_length(3.0 * bell, 0.02) == pytest.approx(smooth)
    assert np.isnan(spectral_arc_length(np.zeros(50), 0.02))
    assert np.isnan(spectral_arc_length(np.ones(1), 0.02))
