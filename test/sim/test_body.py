"""The simulated body against gym-aloha's own environment."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from dit_policy_ros.errors import RobotError, WorldError
from dit_policy_ros.resources import share_directory
from dit_policy_ros.robot import load_robot
from dit_policy_ros.sim.body import AlohaBody
from dit_policy_ros.types import Trajectory

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
    with pytest.raises(
        WorldError, match="aloha_insertion, aloha_language, aloha_nudged, aloha_switch, aloha_transfer_cube"
    ):
        AlohaBody("aloha_pour_tea", robot)


def test_grippers_obey_controllers_of_their_own(robot, tmp_path):
    text = (share_directory() / "config" / "robots" / "aloha.yaml").read_text()
    text = text.replace(", left_gripper]", "]").replace(", right_gripper]", "]")
    grippers = "".join(
        f"  {side}_gripper_controller: {{type: joint_trajectory, joints: [{side}_gripper]}}\n"
        for side in ("left", "right")
    )
    file = tmp_path / "separate.yaml"
    file.write_text(text.replace("\njoint_states:", f"{grippers}\njoint_states:"))
    body = AlohaBody("aloha_transfer_cube", load_robot(file))
    now_ns = body.now_ns()
    times_ns = now_ns + np.array([20_000_000, 400_000_000])
    body.command(Trajectory(("left_gripper",), times_ns, np.array([[0.2], [1.0]])))
    for _ in range(80):
        body.step()
    positions = dict(zip(body.joint_names, body.joint_positions(), strict=True))
    assert positions["left_gripper"] > 0.9
    assert positions["right_gripper"] < 0.2
    with pytest.raises(RobotError, match="No controller owns exactly"):
        body.command(Trajectory(("left_waist", "left_gripper"), times_ns, np.zeros((2, 2))))
    body.close()


def test_a_robot_with_joints_the_simulator_lacks_is_refused(tmp_path):
    text = (share_directory() / "config" / "robots" / "aloha.yaml").read_text()
    file = tmp_path / "other.yaml"
    file.write_text(text.replace("left_waist", "left_hip"))
    with pytest.raises(RobotError, match="left_hip"):
        AlohaBody("aloha_transfer_cube", load_robot(file))


def test_a_program_that_forgets_to_close_a_body_ends_quietly():
    program = (
        "from dit_policy_ros.robot import load_robot\n"
        "from dit_policy_ros.sim.body import AlohaBody\n"
        "body = AlohaBody('aloha_language', load_robot('aloha'))\n"
        "body.render('top', 64, 48)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr == ""


def test_a_nudge_happens_at_its_step(robot):
    body = AlohaBody("aloha_nudged", robot)
    body.reset(5)
    event, cube = body.episode.event, body.data.joint("red_box_joint")
    lain = None
    for _ in range(event.step):
        lain = cube.qpos[:2].copy()
        body.step()
    assert body.steps == event.step
    np.testing.assert_allclose(lain, body.episode.objects[:2], atol=1e-4)
    np.testing.assert_array_equal(cube.qpos, event.pose)
    np.testing.assert_array_equal(cube.qvel, np.zeros(6))
    np.testing.assert_allclose(body.data.body("box").xpos, event.pose[:3], atol=1e-12)
    for _ in range(30):
        body.step()
    np.testing.assert_allclose(cube.qpos[:3], event.pose[:3], atol=1e-3)
    body.close()


def test_a_switch_changes_instruction_and_score_at_its_step(robot):
    body = AlohaBody("aloha_switch", robot)
    for _ in range(2):
        body.reset(5)
        first, event = body.episode, body.episode.event
        for _ in range(event.step):
            assert (body.instruction, body.episode.target) == (first.instruction, first.target)
            body.step()
        assert (body.instruction, body.episode.target) == (event.instruction, event.target)
    body.close()
