"""Between a robot's channels and a family's vectors: references, rotations, scales and normalisers."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_families import H_RDT, POSES, WORDS, observe, random_weights

from dit_policy_ros.actions.rotation import matrix_from_rot6d
from dit_policy_ros.policy.checkpoint import load_policy

pytest.importorskip("transformers")
pytest.importorskip("diffusers")
GRIPPERS = ["left_gripper", "right_gripper"]


def test_relative_joints_are_added_to_the_measured_and_fingers_are_not(policies):
    policy = policies["gr00t_n16_openarm"]
    observation = observe(policy)
    channels = policy.config.actions
    measured = np.array([observation.positions[name] for name in channels.names])
    values = channels.from_network(np.zeros((2, channels.width)), measured)
    fingers = np.array(["finger" in name for name in channels.names])
    np.testing.assert_allclose(values[:, ~fingers], np.tile(measured[~fingers], (2, 1)), atol=1e-12)
    np.testing.assert_allclose(values[:, fingers], 0.0, atol=1e-12)


def test_hand_steps_add_up_from_the_measured_pose(policies):
    policy = policies["cogact_dual_franka"]
    channels = policy.config.actions
    assert channels.names == POSES
    observation = observe(policy)
    measured = np.array([observation.positions[name] for name in POSES])
    network = np.zeros((3, 14))
    network[:, 0] = 0.01  # the left hand moves along x; quantiles are -1 and 1
    network[1:, 13] = 0.7  # the right gripper opens
    values = channels.from_network(network, measured)
    np.testing.assert_allclose(values[:, 0] - measured[0], [0.01, 0.02, 0.03], atol=1e-12)
    np.testing.assert_allclose(values[:, [9, 19]], [[0, 0], [0, 1], [0, 1]])
    np.testing.assert_allclose(values[:, 3:9], np.tile(measured[3:9], (3, 1)), atol=1e-12)


def test_chunks_of_poses_hold_rotations(policies):
    policy = policies["cogact_dual_franka"]
    observation = observe(policy)
    actions = policy.act(observation, policy.encode(observation, WORDS, epoch=10)).actions
    first, second = actions[:, 3:6], actions[:, 6:9]
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0, atol=1e-9)
    np.testing.assert_allclose((first * second).sum(1), 0.0, atol=1e-9)
    assert np.allclose(np.linalg.det(matrix_from_rot6d(actions[:, 3:9])), 1.0)


def test_rdt_grippers_have_the_official_scales(policies):
    channels = policies["rdt_aloha"].config
    positions = {"left_gripper": 4.7908, "right_gripper": 4.7888}
    measured = np.array([positions.get(name, 0.0) for name in channels.states.names])
    state = channels.states.to_network(measured[None], measured)[0]
    assert (state[60], state[10]) == (pytest.approx(1.0), pytest.approx(1.0))
    command = channels.actions.from_network(np.ones((1, 128)), measured)[0]
    named = dict(zip(channels.actions.names, command, strict=True))
    assert (named["left_gripper"], named["right_gripper"]) == (pytest.approx(11.8997), pytest.approx(13.9231))
    assert named["left_waist"] == pytest.approx(1.0)


def test_the_normaliser_of_a_checkpoint_is_that_of_the_channels(policies):
    policy = policies["diffusion_policy_aloha"]
    scaling = policy.binding.network.normalizer["params_dict"]["action"]
    measured, values = np.zeros(14), np.linspace(-0.1, 0.1, 14)[None]
    expected = values * scaling.scale.numpy() + scaling.offset.numpy()
    np.testing.assert_allclose(policy.config.actions.to_network(values, measured), expected.clip(-1, 1), atol=1e-6)


@pytest.mark.parametrize("reference", ["absolute", "relative", "legacy", "delta"])
@pytest.mark.parametrize("rotation", ["rot6d_columns", "rot6d_rows", "rpy", "rotation_vector", "quaternion"])
def test_h_rdt_speaks_poses_in_every_way(edited, reference, rotation):
    """The way out and the way in are inverse to each other, whatever the statistics."""
    count = {"rot6d_columns": 6, "rot6d_rows": 6, "rpy": 3, "rotation_vector": 3, "quaternion": 4}[rotation]
    width = 2 * (4 + count)
    directory = edited(
        "h_rdt_aloha",
        robot="openarm_poses",
        states={"space": "end_effector", "arms": ["left_", "right_"], "grippers": GRIPPERS, "rotation": rotation},
        actions={
            "space": "end_effector",
            "arms": ["left_", "right_"],
            "grippers": GRIPPERS,
            "rotation": rotation,
            "reference": reference,
        },
        checkpoint="small",
    )
    sizes = replace(H_RDT, action_dim=width, state_widths=(width, 16), action_widths=(width, 16))
    random_weights("h_rdt", sizes, directory / "small")
    policy = load_policy(directory)
    observation = observe(policy)
    chunk = policy.act(observation, policy.encode(observation, WORDS))
    channels = policy.config.actions
    measured = np.array([observation.positions[name] for name in channels.names])
    again = channels.from_network(channels.to_network(chunk.actions, measured), measured)
    np.testing.assert_allclose(again, chunk.actions, atol=1e-9)


def test_rdt_fills_the_pose_slots_of_a_robot_with_hands(edited):
    directory = edited("rdt_aloha", robot="dual_franka_poses", states={"space": "slots"}, actions={"space": "slots"})
    policy = load_policy(directory)
    filled = np.flatnonzero(policy.config.actions.mask)
    assert filled.tolist() == [10, *range(30, 39), 60, *range(80, 89)]
    observation = observe(policy)
    assert policy.act(observation, policy.encode(observation, WORDS)).names == POSES
