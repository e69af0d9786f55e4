"""Paths of the hands in images: geometry, and the shipped calibrations against the simulator's own cameras."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.actions.rotation import matrix_from_quaternion
from dit_policy_ros.calibration import Calibration, parse_calibration, parse_kinematics
from dit_policy_ros.data.images import encode_jpeg
from dit_policy_ros.errors import RobotError
from dit_policy_ros.evaluate.projection import Path, overlay, paths_in_image, project, tip_paths
from dit_policy_ros.robot import load_robot

MATRIX = np.array([[100.0, 0.0, 80.0], [0.0, 110.0, 60.0], [0.0, 0.0, 1.0]])
STILL = Calibration(MATRIX, (160, 120), np.eye(4))


class Crane:
    """One hand at (left, right, 2): its joints are its coordinates; a body that hangs at the first of them."""

    def tips(self, positions):
        return {"left": np.array([positions["x"], positions["y"], 2.0])}

    def body_pose(self, body, positions):
        pose = np.eye(4)
        pose[0, 3] = positions["x"]
        return pose


def test_a_point_is_where_a_pinhole_shows_it():
    pixels = project(np.array([[0.0, 0.0, 2.0], [0.2, -0.1, 2.0], [0.0, 0.0, -1.0]]), STILL, np.eye(4))
    np.testing.assert_allclose(pixels[0], [80, 60])
    np.testing.assert_allclose(pixels[1], [90, 54.5])
    assert np.isnan(pixels[2]).all()


@given(
    turn=st.lists(st.floats(-1, 1), min_size=4, max_size=4), place=st.lists(st.floats(-2, 2), min_size=3, max_size=3)
)
def test_moving_camera_and_point_together_changes_nothing(turn, place):
    turn = np.array(turn)
    if np.linalg.norm(turn) < 0.1:
        turn = np.array([0.0, 0.0, 0.0, 1.0])
    carrier = np.eye(4)
    carrier[:3, :3], carrier[:3, 3] = matrix_from_quaternion(turn), place
    local = np.array([[0.1, 0.2, 1.5], [-0.3, 0.1, 0.7]])
    world = local @ carrier[:3, :3].T + carrier[:3, 3]
    np.testing.assert_allclose(project(world, STILL, carrier), project(local, STILL, np.eye(4)), atol=1e-6)


def test_unknown_positions_break_the_line():
    motion = np.array([[0.0, 0.0], [np.nan, 0.0], [0.4, 0.2]])
    points = tip_paths(Crane(), ("x", "y"), motion)["left"]
    assert np.isnan(points[1]).all()
    assert np.isfinite(points[[0, 2]]).all()


def test_a_camera_that_moves_sees_from_where_it_was():
    motions = {"policy": np.array([[0.5, 0.0], [0.7, 0.1]]), "recorded": np.array([[9.0, 9.0], [9.0, 9.0]])}
    riding = Calibration(MATRIX, (160, 120), np.eye(4), frame="trolley")
    (still,) = paths_in_image(Crane(), STILL, ("x", "y"), np.array([0.5, 0.0]), motions)
    (moved,) = paths_in_image(Crane(), riding, ("x", "y"), np.array([0.5, 0.0]), motions)
    assert (still.kind, moved.kind) == ("policy", "policy")  # The other one is nowhere near the image.
    np.testing.assert_allclose(still.pixels[0], [105, 60])
    np.testing.assert_allclose(moved.pixels[0], [80, 60])


def test_the_picture_holds_image_and_lines():
    jpeg = encode_jpeg(np.zeros((12, 16, 3), np.uint8))
    text = overlay(jpeg, (160, 120), [Path("policy", np.array([[1.0, 2.0], [np.nan, 0], [5.0, 6.0]]))], "a < b")
    assert 'd="M1.0 2.0L5.0 6.0"' in text
    assert "data:image/jpeg;base64," in text
    assert "a &lt; b" in text


def test_quaternions_are_read_as_ros_writes_them():
    entry = {"size": [4, 2], "focal": [1.0, 2.0], "centre": [2, 1], "position": [0.1, 0.2, 0.3]}
    turn = np.array([0.1, -0.5, 0.3, 0.8])
    turn /= np.linalg.norm(turn)
    found = parse_calibration(entry | {"quaternion": turn.tolist()}, "camera top")
    np.testing.assert_allclose(found.pose[:3, :3], matrix_from_quaternion(turn))
    np.testing.assert_allclose(found.pose[:3, 3], [0.1, 0.2, 0.3])
    assert found.size == (4, 2)
    for change, match in (
        ({"quaternion": [0, 0, 0, 2]}, "quaternion has length 2.000"),
        ({"quaternion": [0, 0, 1]}, "must be a list of 4 numbers"),
        ({"quaternion": [0, 0, 0, 1], "focal": [0, 1]}, "must be above zero"),
        ({"quaternion": [0, 0, 0, 1], "size": "big"}, "must be a list of 2 numbers"),
    ):
        with pytest.raises(RobotError, match=match):
            parse_calibration(entry | change, "camera top")
    with pytest.raises(RobotError, match="has unknown elbow"):
        parse_kinematics({"model": "m.xml", "tips": {}, "joints": {"elbow": "e"}}, ["waist"], "robot.yaml")


@pytest.fixture(scope="module")
def kinematics():
    module = pytest.importorskip("dit_policy_ros.sim.kinematics")
    return module.ModelKinematics(load_robot("aloha").kinematics)


def test_the_shipped_calibrations_are_the_simulated_cameras(kinematics):
    mujoco = pytest.importorskip("mujoco")
    model = kinematics._model
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    optical = np.diag([1.0, -1.0, -1.0])  # MuJoCo's cameras look along -z, with y up.
    for name, camera in load_robot("aloha").cameras.items():
        index = model.camera(name).id
        calibration = camera.calibration
        carrier = kinematics.body_pose(calibration.frame, {}) if calibration.frame else np.eye(4)
        pose = carrier @ calibration.pose
        np.testing.assert_allclose(pose[:3, 3], data.cam_xpos[index], atol=1e-4)
        np.testing.assert_allclose(pose[:3, :3], data.cam_xmat[index].reshape(3, 3) @ optical, atol=1e-4)
        height = calibration.size[1]
        focal = height / 2 / math.tan(math.radians(float(model.cam_fovy[index])) / 2)
        assert calibration.matrix[1, 1] == pytest.approx(focal, abs=0.01)


def test_a_turn_of_the_waist_carries_its_own_hand_only(kinematics):
    rest = dict.fromkeys(load_robot("aloha").names, 0.0)
    before, after = kinematics.tips(rest), kinematics.tips({**rest, "left_waist": 0.3})
    assert np.linalg.norm(after["left"] - before["left"]) > 0.05
    assert after["left"][2] == pytest.approx(before["left"][2])
    np.testing.assert_array_equal(after["right"], before["right"])


def test_models_that_do_not_fit_are_named(kinematics):
    module = pytest.importorskip("dit_policy_ros.sim.kinematics")
    with pytest.raises(RobotError, match="has no body 'tail'"):
        kinematics.body_pose("tail", {})
    with pytest.raises(RobotError, match=r"nowhere.xml cannot be loaded"):
        module.ModelKinematics(parse_kinematics({"model": "nowhere.xml", "tips": {}, "joints": {}}, [], "r"))
    entry = {"model": "gym_aloha:bimanual_viperx_transfer_cube.xml", "tips": {"left": "thumb"}, "joints": {}}
    thumb = parse_kinematics(entry, [], "r")
    with pytest.raises(RobotError, match="has no site 'thumb'"):
        module.ModelKinematics(thumb)
