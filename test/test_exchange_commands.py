"""``export`` and ``import`` from the command line."""

import json

import numpy as np
import pytest

from dit_policy_ros.__main__ import main
from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.robot import load_robot
from dit_policy_ros.types import Observation, Trajectory

pytest.importorskip("pyarrow")
pytest.importorskip("av")
h5py = pytest.importorskip("h5py")

MS = 1_000_000
ROBOT = load_robot("aloha")


def write_bag(path):
    """Joint states at 20 Hz, images at 10 Hz."""
    with EpisodeWriter(path, ROBOT, EpisodeMetadata()) as writer:
        writer.instruction(1000 * MS, "wave")
        for ms in range(1000, 1500, 50):
            joints = dict(zip(ROBOT.names, np.full(14, ms * 1e-4).tolist(), strict=True))
            images = dict.fromkeys(ROBOT.cameras, np.full((16, 24, 3), ms // 10, np.uint8)) if ms % 100 == 0 else {}
            writer.observation(Observation(ms * MS, joints, {}, images))
            for controller in ROBOT.controllers:
                sent = Trajectory(controller.joints, np.array([ms * MS]), np.full((1, 7), ms * 1e-4 + 0.01))
                writer.command(controller.name, ms * MS, sent)
    return path


def one_line(capsys):
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    return error[0]


def test_a_folder_of_bags_goes_out_and_comes_back(tmp_path, capsys):
    for name in "ab":
        write_bag(tmp_path / "bags" / name)
    out = tmp_path / "set"
    assert main(["export", str(tmp_path / "bags"), "--robot", "aloha", "--out", str(out), "--camera", "top"]) == 0
    assert "Wrote 2 episodes at 20 frames per second" in capsys.readouterr().out
    info = json.loads((out / "meta/info.json").read_text())
    assert [key for key in info["features"] if "images" in key] == ["observation.images.top"]
    assert main(["import", str(out), "--robot", "aloha", "--out", str(tmp_path / "back")]) == 0
    assert "Wrote 2 bags" in capsys.readouterr().out
    episode = open_episode(tmp_path / "back" / "set_000001", ROBOT)
    known = open_episode(tmp_path / "bags" / "b", ROBOT)
    np.testing.assert_array_equal(episode.joints.times_ns, known.joints.times_ns)
    np.testing.assert_array_equal(episode.joints.positions, known.joints.positions.astype(np.float32))
    assert episode.image_stamps_ns("top").tolist() == known.image_stamps_ns("top").tolist()
    assert episode.instruction == "wave"


def test_the_rate_can_be_chosen(tmp_path):
    write_bag(tmp_path / "bag")
    assert main(["export", str(tmp_path / "bag"), "--robot", "aloha", "--out", str(tmp_path / "s"), "--fps", "10"]) == 0
    info = json.loads((tmp_path / "s/meta/info.json").read_text())
    assert (info["fps"], info["total_frames"]) == (10, 5)


def test_names_can_be_given_by_order(tmp_path, capsys):
    write_bag(tmp_path / "bag")
    out = tmp_path / "set"
    assert main(["export", str(tmp_path / "bag"), "--robot", "aloha", "--out", str(out)]) == 0
    info = json.loads((out / "meta/info.json").read_text())
    for key in ("observation.state", "action"):
        info["features"][key]["names"] = None
    (out / "meta/info.json").write_text(json.dumps(info))
    assert main(["import", str(out), "--robot", "aloha", "--out", str(tmp_path / "back")]) == 2
    assert "does not name its joints" in one_line(capsys)
    assert main(["import", str(out), "--robot", "aloha", "--out", str(tmp_path / "back"), "--by-order"]) == 0


def test_hdf5_episodes_come_in_with_cameras_renamed(tmp_path, capsys):
    source = tmp_path / "episode_7.hdf5"
    with h5py.File(source, "w") as file:
        for name in ("observations/qpos", "action"):
            file[name] = np.zeros((5, 14), np.float32)
        for name in ("cam_high", "cam_low"):
            file[f"observations/images/{name}"] = np.full((5, 8, 8, 3), (10, 20, 200), np.uint8)
    command = ["import", str(source), "--robot", "aloha", "--out", str(tmp_path / "bags"), "--camera", "cam_high=top"]
    assert main(command) == 2
    assert "give one with --instruction" in one_line(capsys)
    assert main([*command, "--instruction", "hand it over", "--bgr"]) == 0
    assert "camera cam_low is left out" in capsys.readouterr().out
    episode = open_episode(tmp_path / "bags" / "episode_7", ROBOT)
    _, image = next(episode.frames("top"))
    assert np.abs(image.mean(axis=(0, 1)) - (200, 20, 10)).max() < 4
    assert main([*command[:-1], "cam_high=chest"]) == 2
    assert "must be THEIRS=OURS, with a camera of the robot" in one_line(capsys)


def test_what_cannot_be_exported_is_one_line(tmp_path, capsys):
    write_bag(tmp_path / "bag")
    command = ["export", str(tmp_path / "bag"), "--robot", "aloha", "--out", str(tmp_path / "set")]
    assert main([*command, "--camera", "chest"]) == 2
    assert "Camera 'chest' does not exist" in one_line(capsys)
    assert main([*command, "--fps", "0"]) == 2
    assert "0 frames per second is impossible" in one_line(capsys)
    assert main(command) == 0
    assert main(command) == 2
    assert "exists already" in one_line(capsys)
