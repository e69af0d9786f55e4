"""Episodes of ALOHA in HDF5, images plain and compressed."""

import cv2
import numpy as np
import pytest

from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.data.grid_episode import write_grid_episode
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.errors import BagError

h5py = pytest.importorskip("h5py")
aloha_hdf5 = pytest.importorskip("dit_policy_ros.data.aloha_hdf5")

STEPS = 12


def smooth(k):
    rows, columns = np.mgrid[0:24, 0:32]
    return np.stack([rows * 4 + k, columns * 3, 200 - rows], axis=-1).astype(np.uint8)


def write(path, compress=False, simulated=True, joints=14):
    rng = np.random.default_rng(1)
    data = {name: rng.normal(size=(STEPS, joints)).astype(np.float32) for name in ("qpos", "qvel", "action")}
    images = np.stack([smooth(k) for k in range(STEPS)])
    with h5py.File(path, "w") as file:
        file.attrs["sim"], file.attrs["compress"] = simulated, compress
        file["observations/qpos"], file["observations/qvel"], file["action"] = (
            data["qpos"],
            data["qvel"],
            data["action"],
        )
        if compress:
            jpegs = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1] for image in images]
            length = max(map(len, jpegs))
            file["observations/images/cam_high"] = np.stack(
                [np.pad(j.reshape(-1), (0, length - len(j))) for j in jpegs]
            )
            file["compress_len"] = np.array([[len(j) for j in jpegs]])
        else:
            file["observations/images/cam_high"] = images
    return data, images


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("is_bgr", [False, True])
def test_an_episode_becomes_a_bag(robot, tmp_path, compress, is_bgr):
    data, images = write(tmp_path / "episode_0.hdf5", compress, simulated=not compress)
    file = aloha_hdf5.AlohaFile(tmp_path / "episode_0.hdf5")
    assert (file.is_simulated, file.is_compressed, file.cameras) == (not compress, compress, ("cam_high",))
    grid = file.episode(robot.names, {"cam_high": "top"}, "hand it over", is_bgr)
    shown = images[..., ::-1] if is_bgr else images
    for (_, image), known in zip(grid.cameras["top"](), shown, strict=True):
        assert np.abs(image.astype(int) - known).mean() < (3 if compress else 1e-9)
    episode = open_episode(write_grid_episode(tmp_path / "bag", robot, grid, EpisodeMetadata()), robot)
    assert episode.instruction == "hand it over"
    assert set(np.diff(episode.joints.times_ns).tolist()) == {20_000_000}
    np.testing.assert_array_equal(episode.joints.positions, data["qpos"])
    np.testing.assert_array_equal(episode.joints.velocities, data["qvel"])
    np.testing.assert_array_equal(episode.targets_at(episode.joints.times_ns), data["action"])
    assert len(list(episode.frames("top"))) == STEPS


def test_files_that_are_no_episode_are_named(robot, tmp_path):
    (tmp_path / "text.hdf5").write_text("no")
    with pytest.raises(BagError, match="cannot be read as HDF5"):
        aloha_hdf5.AlohaFile(tmp_path / "text.hdf5")
    with h5py.File(tmp_path / "empty.hdf5", "w") as file:
        file["action"] = np.zeros((3, 14))
    with pytest.raises(BagError, match="lacks observations/qpos; it is no episode of ALOHA"):
        aloha_hdf5.AlohaFile(tmp_path / "empty.hdf5")
    write(tmp_path / "one.hdf5", joints=7)
    one_arm = aloha_hdf5.AlohaFile(tmp_path / "one.hdf5")
    with pytest.raises(BagError, match="has 7 joints; the robot has 14"):
        one_arm.episode(robot.names, {}, "go")
    write(tmp_path / "two.hdf5")
    with pytest.raises(BagError, match="has no camera top; it has cam_high"):
        aloha_hdf5.AlohaFile(tmp_path / "two.hdf5").episode(robot.names, {"top": "top"}, "go")
