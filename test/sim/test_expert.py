"""The scripted experts succeed; the full 200 seeds are the slow test."""

import numpy as np
import pytest

from dit_policy_ros.errors import WorldError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.sim.body import AlohaBody
from dit_policy_ros.sim.expert import EXPERTS, downward, plan_episode, sideways_rolled
from dit_policy_ros.sim.inverse_kinematics import ArmKinematics

LEAST_SHARE = {"aloha_transfer_cube": 0.98, "aloha_language": 0.98, "aloha_insertion": 0.95}


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
