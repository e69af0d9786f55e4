import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dit_policy_ros.actions import pose, rotation
from dit_policy_ros.errors import PolicyError

NUMBERS = st.floats(-3.0, 3.0, allow_nan=False, width=32)
QUATERNIONS = arrays(np.float64, (3, 4), elements=NUMBERS).filter(lambda q: (np.linalg.norm(q, axis=-1) > 1e-3).all())
MATRICES = QUATERNIONS.map(rotation.matrix_from_quaternion)


@given(MATRICES)
def test_a_quaternion_gives_a_rotation(matrix):
    np.testing.assert_allclose(
        matrix @ np.swapaxes(matrix, -1, -2), np.broadcast_to(np.eye(3), matrix.shape), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(matrix), 1.0)


@given(MATRICES)
def test_every_form_returns_to_the_matrix(matrix):
    quaternion = rotation.quaternion_from_matrix(matrix)
    assert (quaternion[..., 3] >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(quaternion, axis=-1), 1.0)
    vector = rotation.rotation_vector_from_matrix(matrix)
    assert (np.linalg.norm(vector, axis=-1) <= np.pi + 1e-9).all()
    forms = [
        rotation.matrix_from_quaternion(quaternion),
        rotation.matrix_from_rotation_vector(vector),
        rotation.matrix_from_rpy(rotation.rpy_from_matrix(matrix)),
        *(rotation.matrix_from_rot6d(rotation.rot6d_from_matrix(matrix, name), name) for name in rotation.LAYOUTS),
    ]
    for form in forms:
        np.testing.assert_allclose(form, matrix, atol=1e-6)


@given(MATRICES, st.floats(0.1, 10.0), st.floats(0.1, 10.0), st.floats(-2.0, 2.0))
def test_six_numbers_of_any_length_are_orthonormalised(matrix, first, second, mixed):
    values = rotation.rot6d_from_matrix(matrix)
    stretched = np.concatenate([first * values[..., :3], second * values[..., 3:] + mixed * values[..., :3]], axis=-1)
    np.testing.assert_allclose(rotation.matrix_from_rot6d(stretched), matrix, atol=1e-7)


@given(MATRICES)
def test_one_layout_read_as_the_other_is_the_inverse(matrix):
    wrong = rotation.matrix_from_rot6d(rotation.rot6d_from_matrix(matrix, "rows"), "columns")
    np.testing.assert_allclose(wrong, np.swapaxes(matrix, -1, -2), atol=1e-9)


def test_known_rotations():
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(rotation.quaternion_from_matrix(quarter), [0, 0, half, half])
    np.testing.assert_allclose(rotation.rot6d_from_matrix(quarter), [0, 1, 0, -1, 0, 0])
    np.testing.assert_allclose(rotation.rot6d_from_matrix(quarter, "rows"), [0, -1, 0, 1, 0, 0])
    np.testing.assert_allclose(rotation.rotation_vector_from_matrix(quarter), [0, 0, np.pi / 2])
    np.testing.assert_allclose(rotation.rpy_from_matrix(quarter), [0, 0, np.pi / 2])
    np.testing.assert_allclose(rotation.rotation_vector_from_matrix(np.eye(3)), [0, 0, 0])
    np.testing.assert_allclose(rotation.matrix_from_rotation_vector(np.zeros(3)), np.eye(3))


@pytest.mark.parametrize("axis", range(3))
def test_half_turns(axis):
    diagonal = -np.ones(3)
    diagonal[axis] = 1.0
    vector = rotation.rotation_vector_from_matrix(np.diag(diagonal))
    np.testing.assert_allclose(np.abs(vector), np.pi * np.eye(3)[axis], atol=1e-12)


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2])
def test_pitch_at_its_end_still_returns_to_the_matrix(pitch):
    matrix = rotation.matrix_from_rpy(np.array([0.4, pitch, -0.9]))
    rpy = rotation.rpy_from_matrix(matrix)
    assert rpy[2] == 0.0
    np.testing.assert_allclose(rotation.matrix_from_rpy(rpy), matrix, atol=1e-7)


def test_quaternion_orders():
    given_xyzw = np.array([1.0, 2.0, 3.0, 4.0])
    assert rotation.wxyz(given_xyzw).tolist() == [4, 1, 2, 3]
    assert rotation.xyzw(rotation.wxyz(given_xyzw)).tolist() == given_xyzw.tolist()


@pytest.mark.parametrize(
    "undefined",
    [
        lambda: rotation.matrix_from_quaternion(np.zeros(4)),
        lambda: rotation.matrix_from_quaternion(np.full(4, np.nan)),
        lambda: rotation.matrix_from_rot6d(np.zeros(6)),
        lambda: rotation.matrix_from_rot6d(np.array([1.0, 2, 3, 2, 4, 6])),
    ],
)
def test_undefined_rotations_are_refused(undefined):
    with pytest.raises(PolicyError, match="undefined"):
        undefined()


def test_unknown_names_list_the_known_ones():
    with pytest.raises(PolicyError, match="Available: columns, rows"):
        rotation.rot6d_from_matrix(np.eye(3), "diagonals")
    with pytest.raises(PolicyError, match="Available: delta, legacy, relative"):
        pose.to_relative(np.eye(4)[None], np.eye(4), "absolute")


POSES = st.tuples(arrays(np.float64, (3, 3), elements=NUMBERS), MATRICES).map(lambda pair: pose.transform(*pair))


@given(POSES, POSES, st.sampled_from(pose.REPRESENTATIONS))
def test_relative_poses_return_to_the_world(poses, bases, representation):
    relative = pose.to_relative(poses, bases[0], representation)
    np.testing.assert_allclose(pose.to_absolute(relative, bases[0], representation), poses, atol=1e-8)


@given(POSES, POSES)
def test_relative_poses_follow_a_moved_base(poses, bases):
    old, new = bases[0], bases[1]
    changed = pose.change_base(pose.to_relative(poses, old), old, new)
    np.testing.assert_allclose(changed, pose.to_relative(poses, new), atol=1e-8)
    np.testing.assert_allclose(pose.inverse(old) @ old, np.eye(4), atol=1e-9)


@given(POSES)
def test_only_the_relative_form_is_the_same_wherever_the_world_is(poses):
    world = pose.transform(np.array([1.0, -2, 0.5]), rotation.matrix_from_rpy(np.array([0.3, -0.2, 1.1])))
    moved = world @ poses
    np.testing.assert_allclose(pose.to_relative(moved, moved[0]), pose.to_relative(poses, poses[0]), atol=1e-8)


def test_no_poses_stay_no_poses():
    empty = np.zeros((0, 4, 4))
    for representation in pose.REPRESENTATIONS:
        assert pose.to_absolute(empty, np.eye(4), representation).shape == (0, 4, 4)
