import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dit_policy_ros.actions.channels import JOINT_REFERENCES, JointChannels, Places
from dit_policy_ros.actions.end_effector import REFERENCES, ROTATIONS, EndEffectorChannels
from dit_policy_ros.actions.normalise import Normaliser, none
from dit_policy_ros.actions.rotation import matrix_from_rotation_vector, rot6d_from_matrix
from dit_policy_ros.errors import PolicyError

NAMES = ("shoulder", "elbow", "gripper")
SCALED = Normaliser(np.array([2.0, -0.5, 3.0]), np.array([0.1, 0.2, -0.3]))
VALUES = arrays(np.float64, (4, 3), elements=st.floats(-3, 3, width=32))
ANGLES = arrays(np.float64, (5, 2, 3), elements=st.floats(-0.75, 0.75, width=32))


def joints(**changes):
    fields = {"names": NAMES, "places": Places(np.array([4, 0, 2]), 6), "normaliser": SCALED} | changes
    return JointChannels(**fields)


@given(VALUES, st.sampled_from(JOINT_REFERENCES), st.booleans())
def test_the_way_to_the_network_and_back_is_the_identity(values, reference, kept):
    channels = joints(reference=reference, always_absolute=("gripper",) if kept else ())
    vector = channels.to_network(values[1:], values[0])
    assert vector.shape == (3, 6)
    assert (vector[:, ~channels.mask] == 0).all()
    np.testing.assert_allclose(channels.from_network(vector, values[0]), values[1:], atol=1e-9)


def test_references_say_what_they_say():
    measured, plan = np.array([1.0, 2.0, 0.5]), np.array([[1.5, 2.0, 1.0], [1.75, 2.0, 0.0]])
    plain = {"normaliser": none(3), "places": Places(np.arange(3), 3), "always_absolute": ("gripper",)}
    relative = joints(reference="relative", **plain).to_network(plan, measured)
    np.testing.assert_allclose(relative, [[0.5, 0, 1], [0.75, 0, 0]])
    delta = joints(reference="delta", **plain).to_network(plan, measured)
    np.testing.assert_allclose(delta, [[0.5, 0, 1], [0.25, 0, 0]])


def test_a_threshold_splits_the_absolute_channels_of_the_network():
    channels = joints(always_absolute=("gripper",), threshold=0.5, normaliser=none(3))
    values = np.zeros((2, 6))
    values[:, 2], values[:, 4] = (0.4, 0.6), (0.4, 0.6)
    np.testing.assert_allclose(channels.from_network(values, np.zeros(3)), [[0.4, 0, 0], [0.6, 0, 1]])


def hands(angles, offset):
    """(5, 20) poses of two arms with grippers."""
    turns = rot6d_from_matrix(matrix_from_rotation_vector(angles))  # (5, 2, 6)
    arms = [np.concatenate([angles[:, i] + offset, turns[:, i], np.full((5, 1), 0.3)], axis=1) for i in range(2)]
    return np.concatenate(arms, axis=1)


@given(ANGLES, st.sampled_from(REFERENCES), st.sampled_from(sorted(ROTATIONS)), st.booleans())
def test_poses_survive_every_reference_and_rotation(angles, reference, rotation, grippers):
    poses = hands(angles, 0.4)
    if not grippers:
        poses = np.delete(poses, [9, 19], axis=1)
    count = 2 * (3 + ROTATIONS[rotation][0] + grippers)
    channels = EndEffectorChannels(
        prefixes=("left_", "right_"),
        grippers=("left_gripper", "right_gripper") if grippers else (),
        places=Places(np.arange(count), count + 3),
        normaliser=Normaliser(np.full(count, 2.0), np.full(count, 0.1)),
        rotation=rotation,
        reference=reference,
    )
    assert len(channels.names) == poses.shape[1]
    vector = channels.to_network(poses[1:], poses[0])
    assert vector.shape == (4, count + 3)
    np.testing.assert_allclose(channels.from_network(vector, poses[0]), poses[1:], atol=1e-7)


def test_what_a_network_says_of_a_rotation_becomes_one():
    channels = EndEffectorChannels(("",), (), Places(np.arange(9), 9), none(9))
    measured = np.array([0, 0, 0, 1.0, 0, 0, 0, 1, 0])
    pose = channels.from_network(np.array([[0, 0, 0, 2.0, 0.1, 0, 0.5, 3.0, 0]]), measured)[0]
    axes = pose[3:].reshape(2, 3)
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"reference": "past"}, "Reference of joint actions 'past'"),
        ({"always_absolute": ("tail",)}, "Channel 'tail'"),
    ],
)
def test_wrong_joint_channels_are_refused(changes, text):
    with pytest.raises(PolicyError, match=text):
        joints(**changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rotation": "euler"}, "Rotation 'euler'"),
        ({"reference": "past"}, "Reference of end-effector actions 'past'"),
        ({"grippers": ("a", "b")}, "2 grippers for 1 arms"),
        ({"normaliser": none(8)}, "9 channels; the normalisation is for 8"),
    ],
)
def test_wrong_end_effector_channels_are_refused(changes, text):
    fields = {"prefixes": ("",), "grippers": (), "places": Places(np.arange(9), 9), "normaliser": none(9)} | changes
    with pytest.raises(PolicyError, match=text):
        EndEffectorChannels(**fields)


def test_channels_that_do_not_fit_into_the_vector_are_refused():
    with pytest.raises(PolicyError, match="do not fit into the network's 2"):
        Places(np.arange(3), 2)
