from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from dit_policy_ros.actions.stop import stopping_waypoints
from dit_policy_ros.actions.velocities import waypoint_velocities

STEP = 20_000_000
LOWER, UPPER = np.array([-1.0, 0.0]), np.array([1.0, 1.0])
ACCELERATION = np.array([15.0, 60.0])
motions = st.tuples(
    st.tuples(st.floats(-1, 1), st.floats(0, 1)).map(np.array),
    st.tuples(st.floats(-3.14, 3.14), st.floats(-6, 6)).map(np.array),
    st.integers(0, STEP - 1),
    st.integers(1, STEP),
)


def stop(position, velocity, now_ns, lead_ns, **kwargs):
    bounds = {"acceleration": ACCELERATION, "lower": LOWER, "upper": UPPER} | kwargs
    return stopping_waypoints(now_ns, position, velocity, first_ns=now_ns + lead_ns, step_ns=STEP, **bounds)


@given(motions)
def test_stays_inside_and_ends_at_rest(motion):
    position, velocity, now_ns, lead_ns = motion
    times, positions = stop(*motion)
    assert (times % STEP == 0).all()
    assert times[0] >= now_ns + lead_ns
    assert (np.diff(times) == STEP).all()
    assert (positions >= LOWER).all()
    assert (positions <= UPPER).all()
    # Monotone: it never turns back, and never speeds up.
    path = np.concatenate((position[None], positions))
    assert (np.diff(path, axis=0) * np.sign(velocity) >= -1e-12).all()
    speed = np.abs(np.diff(path, axis=0)) / (np.diff(times, prepend=now_ns) * 1e-9)[:, None]
    assert (np.diff(speed, axis=0) <= 1e-6).all()
    assert (speed[0] <= np.abs(velocity) + 1e-6).all()


@given(motions)
def test_brakes_within_the_acceleration_where_there_is_room(motion):
    position, velocity, now_ns, lead_ns = motion
    times, positions = stop(*motion, lower=np.full(2, -9.0), upper=np.full(2, 9.0))
    stop_s = (times[-1] - now_ns) * 1e-9
    slack_s = (lead_ns + 2 * STEP) * 1e-9
    assert stop_s <= (np.abs(velocity) / ACCELERATION).max() + slack_s
    velocities = np.concatenate((velocity[None], waypoint_velocities(now_ns, position, times, positions)))
    braking = np.abs(np.diff(velocities, axis=0)) / (np.diff(times, prepend=now_ns) * 1e-9)[:, None]
    assume(times[0] - now_ns > 1_000_000)
    assert (braking <= ACCELERATION * (1 + 1e-6) + 1e-6).all()


def test_at_rest_it_is_one_waypoint_in_place():
    times, positions = stop(np.array([0.5, 0.5]), np.zeros(2), 5, 100)
    np.testing.assert_array_equal(times, [STEP])
    np.testing.assert_array_equal(positions, [[0.5, 0.5]])


def test_the_way_to_rest_is_that_of_even_braking():
    times, positions = stop(np.zeros(2), np.array([3.0, 0.0]), 0, STEP)
    assert times[-1] == 10 * STEP
    np.testing.assert_allclose(positions[-1], [0.3, 0.0])


@given(motions, st.floats(1.0, 2.0))
def test_from_outside_it_goes_no_farther_out(motion, outside):
    _, velocity, now_ns, lead_ns = motion
    _, positions = stop(np.array([outside, 0.5]), velocity, now_ns, lead_ns)
    assert positions[:, 0].max() <= outside


@given(motions)
def test_swapping_arms_swaps_arms(motion):
    position, velocity, now_ns, lead_ns = motion
    times, positions = stop(position, velocity, now_ns, lead_ns)
    other_times, other = stop(
        position[::-1],
        velocity[::-1],
        now_ns,
        lead_ns,
        acceleration=ACCELERATION[::-1],
        lower=LOWER[::-1],
        upper=UPPER[::-1],
    )
    np.testing.assert_array_equal(times, other_times)
    np.testing.assert_array_equal(positions, other[:, ::-1])
