from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dit_policy_ros.actions.limits import KINDS, JointLimits, exceeds, excesses, within
from dit_policy_ros.actions.motion import Motion, through

H = 0.02
WIDE = JointLimits(*(np.full(2, value) for value in (-9.0, 9.0, 1e4, 1e6, 1e9)))
waypoints = arrays(np.float64, (12, 2), elements=st.floats(-1, 1))


def dense(motion: Motion) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, velocities and accelerations at many instants."""
    t = np.linspace(0.0, H, 400)[:, None, None]
    p, v, a = (part[:-1] for part in (motion.positions, motion.velocities, motion.accelerations))
    j = motion.jerks
    return p + t * v + t**2 / 2 * a + t**3 / 6 * j, v + t * a + t**2 / 2 * j, a + t * j


@given(waypoints)
def test_what_is_found_between_knots_is_what_dense_sampling_finds(points):
    motion = through(points, H)
    positions, velocities, accelerations = dense(motion)
    for kind, values in (("velocity", velocities), ("acceleration", accelerations)):
        most = np.abs(values).max(axis=(0, 1)) + 1e-6
        limits = JointLimits(**{**vars(WIDE), kind: most * 1.001})
        assert not excesses(limits, motion)[kind].any()
        if (most > 0.1).all():
            tight = JointLimits(**{**vars(WIDE), kind: most * 0.98})
            assert excesses(tight, motion)[kind].any(axis=0).all()
    highest, lowest = positions.max(axis=(0, 1)), positions.min(axis=(0, 1))
    assert within(JointLimits(**{**vars(WIDE), "upper": highest + 1e-4, "lower": lowest - 1e-4}), motion).all()
    assert not within(JointLimits(**{**vars(WIDE), "upper": highest - 1e-3}), motion).any()
    assert not within(JointLimits(**{**vars(WIDE), "lower": lowest + 1e-3}), motion).any()


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_evaluated_exceeds(kind):
    motion = through(np.zeros((5, 2)), H)
    assert within(WIDE, motion).all()
    broken = {"position": "positions", "velocity": "velocities"}.get(kind, "accelerations")
    getattr(motion, broken)[2, 1] = np.nan
    assert excesses(WIDE, motion)[kind].any(axis=0).tolist() == [False, True]
    assert within(WIDE, motion).tolist() == [True, False]


@given(waypoints, st.floats(0.3, 1.2))
def test_within_says_what_the_excesses_say(points, share):
    motion = through(points, H)
    positions, velocities, accelerations = (np.abs(values).max(axis=(0, 1)) for values in dense(motion))
    jerks = np.abs(motion.jerks).max(axis=0)
    for tight in (WIDE, JointLimits(-share * positions, share * positions, *list(vars(WIDE).values())[2:])):
        for limits in (tight, replace(tight, velocity=share * velocities), replace(tight, acceleration=accelerations)):
            for each in (limits, replace(limits, jerk=share * jerks)):
                outside = np.any([found.any(axis=0) for found in excesses(each, motion).values()], axis=0)
                assert within(each, motion).tolist() == (~outside).tolist()


def test_a_limit_that_is_not_a_number_is_exceeded():
    assert exceeds(np.zeros(1), np.array([np.nan])).all()
    limits = JointLimits(**{**vars(WIDE), "jerk": np.array([np.nan, 1.0])})
    assert within(limits, through(np.zeros((5, 2)), H)).tolist() == [False, True]


def test_limits_can_be_widened_and_picked():
    wide = WIDE.including(np.array([-10.0, 0.0]), np.array([0.0, 12.0]))
    np.testing.assert_array_equal(wide.lower, [-10.0, -9.0])
    np.testing.assert_array_equal(wide.upper, [9.0, 12.0])
    np.testing.assert_array_equal(wide.columns(np.array([1])).upper, [12.0])
