from __future__ import annotations

import numpy as np
import pytest

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
    expected = 1.0 - 0.25 * WAIST.velocity / 0.1 / WAIST.acceleration
    assert margins.closest["acceleration"].share == pytest.approx(expected)
    assert {margin.joint for margin in margins.closest.values()} == {"left_waist"}


def test_beyond_a_limit_the_margin_is_negative_and_forgetting_restores_it():
    margins = Margins(SPEC)
    margins.note(sent([WAIST.upper + 0.1], [0.0]))
    assert margins.closest["position"].share < 0.0
    margins.clear()
    assert margins.closest["position"].share == 1.0
