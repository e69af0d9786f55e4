"""The simulated body against gym-aloha's own environment."""

import gymnasium
import numpy as np
import pytest

from dit_policy_ros.errors import WorldError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.sim.body import AlohaBody

GYM_NAMES = {"aloha_transfer_cube": "AlohaTransferCube-v0", "aloha_insertion": "AlohaInsertion-v0"}


@pytest.fixture(scope="module")
def robot():
    return load_robot("aloha")


@pytest.mark.parametrize("world", GYM_NAMES)
def test_same_physics_and_reward_as_gym_aloha(world, robot, monkeypatch):
    import gym_aloha  # noqa: F401  registers the environments
    from gym_aloha.tasks.sim import BimanualViperXTask

    monkeypatch.setattr(
        BimanualViperXTask,
        "get_observation",
        lambda self, physics: {"qpos": self.get_qpos(physics), "images": {"top": np.zeros((480, 640, 3), np.uint8)}},
    )
    env = gymnasium.make(f"gym_aloha/{GYM_NAMES[world]}", obs_type="pixels_agent_pos", disable_env_checker=True)
    env = env.unwrapped
    body = AlohaBody(world, robot)
    rng = np.random.default_rng(5)
    for seed in (3, 1000):
        env.reset(seed=seed)
        body.reset(seed)
        target = body.joint_positions()
        for _ in range(150):
            target = target + rng.normal(0.0, 0.02, 14)
            _, reward, *_ = env.step(target)
            body.advance(target)
            np.testing.assert_array_equal(body.data.qpos, env._env.physics.data.qpos)
            assert body.score().reward == reward
    body.close()


def test_clock_never_goes_back(robot):
    body = AlohaBody("aloha_language", robot)
    body.step()
    before = body.now_ns()
    body.reset(4)
    assert body.now_ns() == before
    assert body.steps == 0
    body.close()


def test_same_seed_same_world_other_seed_other_world(robot):
    body = AlohaBody("aloha_language", robot)
    body.reset(4)
    first, image = body.data.qpos.copy(), body.render("top", 64, 48)
    body.reset(5)
    assert not np.array_equal(first, body.data.qpos)
    body.reset(4)
    np.testing.assert_array_equal(first, body.data.qpos)
    np.testing.assert_array_equal(image, body.render("top", 64, 48))
    body.close()


def test_unknown_world_lists_the_known(robot):
    with pytest.raises(WorldError, match="aloha_insertion, aloha_language, aloha_transfer_cube"):
        AlohaBody("aloha_pour_tea", robot)
