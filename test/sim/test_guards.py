from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from dit_policy_ros.actions.motion import Motion, through
from dit_policy_ros.errors import RobotError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.runtime.executor import Executor
from dit_policy_ros.runtime.executor_config import ExecutorConfig
from dit_policy_ros.sim.collision_guard import CollisionGuard
from dit_policy_ros.sim.guards import guards_of
from dit_policy_ros.sim.robot_model import RobotModel
from dit_policy_ros.sim.tool_guards import ToolSpeedGuard, WorkspaceGuard
from dit_policy_ros.types import ActionChunk

SPEC = load_robot("aloha")
H = 0.02
MARGIN_M = 0.02
HOME = np.array([SPEC.home[name] for name in SPEC.names])


@pytest.fixture(scope="module")
def robot():
    return RobotModel(SPEC.kinematics, SPEC.names)


@pytest.fixture(scope="module")
def guard():
    return CollisionGuard(RobotModel(SPEC.kinematics, SPEC.names), MARGIN_M)


def line_to(goal: np.ndarray, steps: int = 48) -> Motion:
    share = 0.5 * (1.0 - np.cos(np.pi * np.linspace(0.0, 1.0, steps)))[:, None]
    return through(HOME + share * (goal - HOME), H)


def moved(**joints: float) -> np.ndarray:
    return np.array([joints.get(name, value) for name, value in zip(SPEC.names, HOME, strict=True)])


FORWARD = {"left_shoulder": 0.4, "left_elbow": -0.3, "right_shoulder": 0.4, "right_elbow": -0.3}
"""Both arms stretched out against each other."""
DOWN = {"left_shoulder": 0.6, "left_elbow": 0.9}
"""One hand into the table."""


def closest_m(guard: CollisionGuard, positions: np.ndarray) -> float:
    """Smallest distance of parts that count, by MuJoCo's own distance function for each pair."""
    robot = guard._robot
    robot.move(positions)
    model, data = robot.model, robot.data
    solid = np.flatnonzero(model.geom_contype)
    distances = [
        mujoco.mj_geomDistance(model, data, int(a), int(b), 0.2, None)
        for i, a in enumerate(solid)
        for b in solid[i + 1 :]
        if guard.counts(a, b)
    ]
    # For the table and one upper arm far above it the function returns exactly 0.
    return min(distance for distance in distances if distance != 0.0)


def test_home_and_small_motions_are_free(guard):
    assert guard.check(line_to(HOME)) is None
    assert guard.check(line_to(moved(left_waist=0.2, right_waist=-0.2, left_gripper=1.0))) is None


@pytest.mark.parametrize("joints", [FORWARD, DOWN], ids=["arms", "table"])
def test_what_comes_too_close_is_found_where_it_happens(guard, joints):
    motion = line_to(moved(**joints))
    finding = guard.check(motion)
    assert finding is not None
    assert "too close" in finding.text
    clearances = np.array([closest_m(guard, positions) for positions in motion.positions[: finding.knot + 2]])
    first = int(np.argmax(clearances < MARGIN_M))
    assert clearances.min() < MARGIN_M
    assert abs(finding.knot - first) <= 1


def test_few_places_are_looked_at_where_there_is_room(guard):
    before = guard.checks
    assert guard.check(line_to(moved(left_wrist_rotate=0.3))) is None
    assert guard.checks - before < 25


def test_what_is_too_close_already_may_part(guard):
    motion = line_to(moved(**FORWARD))
    knot = guard.check(motion).knot
    inside = motion[: knot + 2]
    back = Motion(H, inside.positions[::-1], -inside.velocities[::-1], inside.accelerations[::-1])
    assert guard.check(back) is None


def test_what_is_not_a_number_is_not_allowed(guard, robot):
    broken = line_to(moved(left_waist=np.nan))
    assert guard.check(broken).knot == 0
    assert ToolSpeedGuard(robot, 9.0).check(broken).knot == 0
    assert WorkspaceGuard(robot, {"left": np.array([[-9.0] * 3, [9.0] * 3])}).check(broken) is not None


def chunk_to(goal: np.ndarray) -> ActionChunk:
    return ActionChunk(SPEC.names, 10**9, 20_000_000, line_to(goal).positions, 10**9, 10**9, 1)


def driven(goal: np.ndarray, spec=SPEC, **config):
    config = ExecutorConfig(collision_margin_m=MARGIN_M, **config)
    executor = Executor(spec, config, guards_of(spec, config))
    executor.activate(10**9)
    executor.feedback(10**9, dict(zip(SPEC.names, HOME.tolist(), strict=True)))
    executor.tick(10**9, 10**9)
    assert executor.accept(chunk_to(goal), 10**9) == ""
    return executor, executor.tick(10**9 + 5_000_000, 0)


def test_the_plan_stops_ahead_of_a_collision(guard):
    executor, sent = driven(moved(**FORWARD))
    assert executor.reason.startswith("collision: ")
    assert executor.interventions == {"collision": 1}
    assert len(sent) == 2
    clearances = [closest_m(guard, positions) for positions in executor.plan.actions]
    assert min(clearances) > MARGIN_M - 0.003
    # It goes most of the way.
    assert min(clearances) < 0.1
    free, _ = driven(moved(left_waist=0.2))
    assert (free.reason, free.interventions) == ("chunk", {})


def test_a_collision_can_refuse_the_chunk():
    executor, sent = driven(moved(**FORWARD), collision_mode="refuse")
    assert sent == ()
    assert executor.refusals == {"collision": 1}


def test_a_fast_hand_is_slowed_along_its_path(robot):
    goal = moved(left_waist=0.6, right_waist=-0.6)
    spec = replace(SPEC, kinematics=replace(SPEC.kinematics, tool_speed=0.25))
    executor, sent = driven(goal, spec)
    assert executor.interventions == {"tool speed": 1}
    assert sent[0].times_ns[-1] > driven(goal)[1][0].times_ns[-1] + 200_000_000
    plan = executor.plan.actions
    np.testing.assert_allclose(plan[:, 0], -plan[:, 7], atol=1e-6)
    tips = []
    for positions in plan:
        robot.move(positions)
        tips.append(robot.data.site_xpos[robot.tips["left"]].copy())
    assert np.linalg.norm(np.diff(tips, axis=0), axis=1).max() / H < 0.25


def test_a_hand_stays_in_its_box(robot):
    robot.move(HOME)
    tip = robot.data.site_xpos[robot.tips["left"]].copy()
    room = np.array([0.5, 0.08, 0.5])
    box = np.stack((tip - room, tip + room))
    spec = replace(SPEC, kinematics=replace(SPEC.kinematics, workspace={"left": box}))
    executor, _ = driven(moved(left_waist=0.6), spec)
    assert executor.reason.startswith("workspace: the left hand")
    robot.move(executor.plan.actions[-1])
    rest = robot.data.site_xpos[robot.tips["left"]]
    assert (rest <= box[1]).all()
    assert (rest >= box[0]).all()
    assert np.abs(rest - tip)[1] > 0.02


def test_fingers_may_touch_as_far_as_the_description_says(guard):
    strict = replace(SPEC.kinematics, touching=())
    finding = CollisionGuard(RobotModel(strict, SPEC.names), MARGIN_M).check(line_to(moved(**FORWARD)))
    assert "finger" in finding.text
    assert finding.knot < guard.check(line_to(moved(**FORWARD))).knot


def test_guards_follow_the_description():
    config = ExecutorConfig()
    assert guards_of(SPEC, ExecutorConfig(collision_mode="off")) == ()
    assert [guard.name for guard in guards_of(SPEC, config)] == ["collision"]
    assert guards_of(replace(SPEC, kinematics=None), config) == ()
    wrong = replace(SPEC, kinematics=replace(SPEC.kinematics, objects=("ball",)))
    with pytest.raises(RobotError, match="ball"):
        guards_of(wrong, config)
