from __future__ import annotations

import json

import numpy as np
import pytest

from dit_policy_ros.__main__ import main
from dit_policy_ros.actions.limits import JointLimits
from dit_policy_ros.evaluate import limit_run
from dit_policy_ros.evaluate.limit_run import HOSTILITY, hostile_actions, random_limits, run_limits
from dit_policy_ros.evaluate.motion_check import Bounds, MotionJudge

MS = 1_000_000
BOUNDS = Bounds(*(np.full(1, value) for value in (-1.0, 1.0, 1.0, 10.0, 1000.0)))


def test_hostile_chunks_move_nothing_out_of_its_limits():
    found = run_limits(3000, seed=3, joints=40)
    assert found.chunks >= 3000
    assert found.holds == found.chunks
    assert not found.violations
    assert not found.refused
    # They were driven to the limits, too.
    assert min(found.worst[kind] for kind in ("velocity", "acceleration", "jerk")) > 0.9


def test_the_command_reports_and_repeats(capsys):
    outputs = []
    for _ in range(2):
        assert main(["bench", "limits", "--chunks", "60", "--joints", "3", "--runs", "2", "--seed", "5"]) == 0
        outputs.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert outputs[0]["violations"] == {}
    assert outputs[0]["worst"] == outputs[1]["worst"]
    assert main(["bench", "limits", "--chunks", "0"]) == 2


def test_a_planner_that_knows_wider_limits_is_caught(monkeypatch):
    real = limit_run.Bounds
    monkeypatch.setattr(limit_run, "Bounds", lambda *limits: real(*limits[:2], *(0.8 * limit for limit in limits[2:])))
    assert {"velocity", "acceleration", "jerk"} <= set(run_limits(400, seed=1, joints=20).violations)


@pytest.mark.parametrize("kind", HOSTILITY)
def test_every_kind_of_chunk_is_made(kind):
    rng = np.random.default_rng(0)
    limits = random_limits(rng, 50)
    assert isinstance(limits, JointLimits)
    actions = HOSTILITY[kind](rng, np.zeros(50), limits)
    assert actions.shape == hostile_actions(rng, np.zeros(50), limits).shape == (10, 50)
    assert np.isfinite(actions).all()


@pytest.mark.parametrize(
    ("positions", "velocities", "kind"),
    [
        ([0.0, 1.01], [0.0, 0.0], "position"),
        ([0.0, 0.3], [0.0, 0.0], "velocity"),
        ([0.0, 0.02], [0.0, 0.0], "acceleration"),
        ([0.0, 0.002], [0.0, 0.0], "jerk"),
        ([0.0, 0.001], [0.0, 0.01], "not at rest in the end"),
        ([0.0, float("nan")], [0.0, 0.0], "not finite"),
    ],
)
def test_the_judge_sees_each_violation(positions, velocities, kind):
    judge = MotionJudge(BOUNDS, np.zeros(1))
    judge.command(0, np.array([100, 200]) * MS, np.array(positions)[:, None], np.array(velocities)[:, None])
    judge.follow_to_rest()
    assert judge.violations[kind] > 0


def test_the_judge_passes_a_motion_of_bounded_jerk():
    judge = MotionJudge(BOUNDS, np.zeros(1))
    t = 0.05 * np.arange(5)
    jerk = np.array([100.0, -100.0, -100.0, 100.0])
    states = np.zeros((5, 3))
    for k in range(4):
        p, v, a = states[k]
        h = 0.05
        states[k + 1] = (p + h * v + h**2 / 2 * a + h**3 / 6 * jerk[k], v + h * a + h**2 / 2 * jerk[k], a + h * jerk[k])
    states[-1, 1:] = 0.0
    judge.command(0, (t * 1e9).astype(np.int64), states[:, :1], states[:, 1:2])
    judge.follow_to_rest()
    assert not judge.violations
    assert judge.worst["jerk"] == pytest.approx(0.1)
