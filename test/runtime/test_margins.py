from __future__ import annotations

import numpy as np
import pytest

from dit_policy_ros.actions.limits import KINDS
from dit_policy_ros.robot import load_robot
from dit_policy_ros.runtime.margins import Margins
from dit_policy_ros.types import Trajectory

SPEC = load_robot("aloha")
WAIST = SPEC.joints[0]


def sent(positions, velocities) -> tuple[Trajectory, ...]:
    times_ns = np.arange(len(positions)) * 100_000_000
    return (Trajectory(("left_waist",), times_ns, np.array(positions)[:, None], np.array(velocities)[:, None]),)


def test_the_closest_approach_to_each_limit_is_kept_with_its_joint():
    margins = Margins(SPEC)
    margins.note(sent([0.0, WAIST.upper * 0.9], [0.0, WAIST.velocity * 0.25]))
    margins.note(sent([0.0, 0.1], [0.0, WAIST.velocity * 0.1]))
    assert margins.closest["position"].share == pytest.approx(0.1, abs=1e-6)
    assert margins.closest["velocity"].share == pytest.approx(0.75)
    assert margins.closest.keys() == set(KINDS)
    assert {margin.joint for margin in margins.closest.values()} == {"left_waist"}


def test_acceleration_and_jerk_are_those_of_the_cubics_between_waypoints():
    half, t = 0.5 * WAIST.acceleration, 0.1
    margins = Margins(SPEC)
    margins.note(sent([0.0, half * t**2 / 2.0], [0.0, half * t]))
    assert margins.closest["acceleration"].share == pytest.approx(0.5)
    assert margins.closest["jerk"].share == pytest.approx(1.0)
    # The acceleration grows along the cubic, and is largest at its end.
    jerk = 0.75 * WAIST.acceleration / t
    margins.note(sent([0.0, jerk * t**3 / 6.0], [0.0, jerk * t**2 / 2.0]))
    assert margins.closest["acceleration"].share == pytest.approx(0.25)
    assert margins.closest["jerk"].share == pytest.approx(1.0 - jerk / WAIST.jerk)


def test_beyond_a_limit_the_margin_is_negative_and_forgetting_restores_it():
    margins = Margins(SPEC)
    margins.note(sent([WAIST.upper + 0.1], [0.0]))
    assert margins.closest["position"].share < 0.0
    margins.clear()
    assert margins.closest["position"].share == 1.0
