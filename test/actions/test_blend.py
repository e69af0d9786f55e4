from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dit_policy_ros.actions.blend import blended
from dit_policy_ros.actions.limiter import rested
from dit_policy_ros.actions.limits import JointLimits, within
from dit_policy_ros.actions.motion import Motion, through

H = 0.02
N = 40
LIMITS = JointLimits(*(np.full(N, value) for value in (-1.0, 1.0, 2.0, 20.0, 900.0)))
REST = Motion(H, np.zeros((1, N)), np.zeros((1, N)), np.zeros((1, N)))


def other(points: np.ndarray) -> Motion:
    """A spline from rest at zero, whatever its limits."""
    motion = through(np.concatenate((np.zeros((3, N)), points)), H)[2:]
    for part in (motion.velocities, motion.accelerations):
        part[0] = part[-1] = 0.0
    return motion


@settings(deadline=None)
@given(arrays(np.float64, (12, N), elements=st.floats(-3, 3)))
def test_the_blend_is_inside_and_more_of_it_would_not_be(points):
    wild = other(points)
    blend = blended(LIMITS, REST, wild)
    assert within(LIMITS, blend).all()
    rest = REST.padded(len(wild))
    more = Motion(H, *(a + 1.2 * (b - a) for a, b in zip(_parts(rest), _parts(blend), strict=True)))
    whole = (np.abs(blend.positions - wild.positions) < 1e-12).all(axis=0)
    # Bezier points bound positions and speeds from outside, so that a little is given away.
    assert (~within(LIMITS, more) | whole).mean() > 0.5


def test_what_is_allowed_is_taken_whole():
    gentle = rested(LIMITS, other(0.01 * (1.0 - np.cos(0.2 * np.arange(12)))[:, None] * np.ones(N))[:-1])
    blend = blended(LIMITS, REST, gentle)
    assert within(LIMITS, gentle).all()
    np.testing.assert_array_equal(blend.positions, gentle.positions)


def test_no_way_at_all_is_what_is_inside():
    wild = other(np.ones((12, N)))
    np.testing.assert_array_equal(blended(LIMITS, REST, wild, 0.0).positions, np.zeros((len(wild), N)))
    half = np.abs(blended(LIMITS, REST, wild, 1e-3).positions).max()
    assert 0.0 < half <= 1e-3 * np.abs(wild.positions).max() * (1.0 + 1e-9)


def test_a_motion_that_is_not_a_number_leaves_what_is_inside():
    nothing = Motion(H, *(np.full((9, N), np.nan) for _ in range(3)))
    assert np.array_equal(blended(LIMITS, REST, nothing).positions, np.zeros((9, N)))


def test_at_a_limit_only_the_way_back_is_open():
    at_end = Motion(H, np.ones((1, N)), REST.velocities, REST.accelerations)
    inwards = Motion(H, 1.0 - np.linspace(0.0, 0.01, 9)[:, None] * np.ones(N), *(np.zeros((9, N)) for _ in range(2)))
    outwards = Motion(H, 2.0 - inwards.positions, inwards.velocities, inwards.accelerations)
    assert (blended(LIMITS, at_end, inwards).positions[-1] < 1.0).all()
    assert (blended(LIMITS, at_end, outwards).positions == 1.0).all()


def _parts(motion: Motion) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return motion.positions, motion.velocities, motion.accelerations
