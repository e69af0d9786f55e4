"""The scripted experts succeed; the full 200 seeds are the slow test."""

import numpy as np
import pytest

from dit_policy_ros.errors import WorldError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.sim.body import AlohaBody
from dit_policy_ros.sim.expert import EXPERTS, REACTION_STEPS, downward, plan_episode, sideways_rolled
from dit_policy_ros.sim.inverse_kinematics import ArmKinematics

LEAST_SHARE = dict.fromkeys(EXPERTS, 0.98) | {"aloha_insertion": 0.95}


def strict_share(world, seeds):
    body = AlohaBody(world, load_robot("aloha"))
    successes = 0
    for seed in seeds:
        body.reset(seed)
        plan = plan_episode(body)
        for step in range(body.world.episode_steps):
            body.advance(plan.targets[min(step, len(plan.targets) - 1)])
        successes += body.score().strict
    body.close()
    return successes / len(seeds)


@pytest.mark.parametrize("world", EXPERTS)
def test_expert_succeeds_on_a_few_seeds(world):
    assert strict_share(world, range(2000, 2006)) == 1.0


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("world", EXPERTS)
def test_expert_succeeds_on_200_seeds(world):
    assert strict_share(world, range(200)) >= LEAST_SHARE[world]


@pytest.mark.parametrize("world", EXPERTS)
def test_plan_stays_within_the_robots_limits(world):
    robot = load_robot("aloha")
    body = AlohaBody(world, robot)
    for seed in range(12):
        body.reset(seed)
        targets = plan_episode(body).targets
        assert (targets >= robot.lower - 1e-9).all()
        assert (targets <= robot.upper + 1e-9).all()
        speed = np.abs(np.diff(targets, axis=0)) / 0.02
        assert (speed <= robot.velocity).all()
    body.close()


@pytest.mark.parametrize("world", ["aloha_nudged", "aloha_switch"])
def test_an_answer_takes_the_motion_over_as_it_is(world):
    body = AlohaBody(world, load_robot("aloha"))
    for seed in range(8):
        body.reset(seed)
        plan = plan_episode(body)
        ((step, before),) = plan.given_up
        assert step == body.episode.event.step + REACTION_STEPS
        np.testing.assert_array_equal(plan.targets[:step], before[:step])
        assert plan.intended_at(step - 1) is before
        assert plan.intended_at(step) is plan.targets
        arms = [*range(6), *range(7, 13)]
        steps = np.diff(plan.targets[:, arms], axis=0)
        bend = np.abs(np.diff(steps, axis=0)).max(axis=1)
        # A plan that stopped dead would bend by a whole step of its motion.
        assert bend[step - 2 : step].max() < 0.004 + 0.5 * np.abs(steps[step - 1]).max()
        after = np.arange(step, len(plan.targets))
        assert np.abs(plan.targets[after] - before[np.minimum(after, len(before) - 1)]).max() > 0.01
    body.close()


def test_the_first_cube_is_left_alone_after_a_switch():
    body = AlohaBody("aloha_switch", load_robot("aloha"))
    body.reset(5)
    first = body.data.joint(f"{body.episode.target}_joint").qpos
    lain = first.copy()
    for target in plan_episode(body).targets:
        body.advance(target)
    np.testing.assert_allclose(first[:2], lain[:2], atol=1e-3)
    assert body.score().strict
    body.close()


@pytest.mark.parametrize("rotation", [downward("left"), downward("right", 0.5), sideways_rolled()])
def test_hand_rotations_are_right_handed(rotation):
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_out_of_reach_is_said():
    body = AlohaBody("aloha_transfer_cube", load_robot("aloha"))
    arm = ArmKinematics(body.model, "right", body.data.qpos.copy())
    with pytest.raises(WorldError, match="cannot reach"):
        arm.solve(np.array([-2.0, 0.5, 0.1]), downward("right"))
    body.close()
