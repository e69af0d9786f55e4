"""LeRobotDataset v3: what is exported is what is imported, and the files are what the format says."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dit_policy_ros.__main__ import main
from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.grid_episode import GridEpisode, grid_times_ns, sample_episode, write_grid_episode
from dit_policy_ros.data.images import encode_jpeg
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.errors import BagError
from dit_policy_ros.types import Trajectory

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
av = pytest.importorskip("av")
lerobot_import = pytest.importorskip("dit_policy_ros.data.lerobot_import")
lerobot_export = pytest.importorskip("dit_policy_ros.data.lerobot_export")
layout = pytest.importorskip("dit_policy_ros.data.lerobot_layout")

FPS = 50
CAMERAS = ("top", "left_wrist")
# Mean difference of a smooth image after H.264 at quality 18, of 255.
CODEC_ERROR = 4.0


@pytest.fixture
def exported(record, robot, tmp_path):
    """Two episodes of different lengths and instructions, and the dataset made of them."""
    sources = [record("a"), record("b", steps=24, seed=9, instruction="push it")]
    grids = [sample_episode(open_episode(source.path, robot), FPS, CAMERAS) for source in sources]
    assert lerobot_export.export_episodes(tmp_path / "set", robot.name, FPS, grids) == 2
    return tmp_path / "set", sources, grids


def names(cameras=CAMERAS):
    return dict(zip(cameras, cameras, strict=True))


def test_states_actions_times_and_instructions_come_back_exactly(exported):
    path, sources, grids = exported
    folder = lerobot_import.LeRobotFolder(path)
    assert (len(folder), folder.fps, set(folder.cameras)) == (2, FPS, set(CAMERAS))
    for index, (grid, source) in enumerate(zip(grids, sources, strict=True)):
        back = folder.episode(index, names())
        assert back.names == grid.names
        np.testing.assert_array_equal(back.times_ns, grid.times_ns)
        np.testing.assert_array_equal(back.times_ns, source.times_ns[1:])  # Nothing is commanded at the first.
        np.testing.assert_array_equal(back.states, source.positions[1:].astype(np.float32))
        np.testing.assert_array_equal(back.actions, source.targets[:-1].astype(np.float32))
        assert back.instructions == grid.instructions
        for camera in CAMERAS:
            for (stamp_ns, image), (known_ns, known) in zip(
                back.cameras[camera](), grid.cameras[camera](), strict=True
            ):
                assert stamp_ns == known_ns
                assert np.abs(image.astype(int) - known).mean() < CODEC_ERROR


def test_a_bag_made_of_the_dataset_gives_the_same_dataset(exported, robot, tmp_path):
    path, _, grids = exported
    folder = lerobot_import.LeRobotFolder(path)
    two = replace(robot, cameras={name: robot.cameras[name] for name in CAMERAS})
    for index, grid in enumerate(grids):
        bag = write_grid_episode(tmp_path / f"bag{index}", two, folder.episode(index, names()), EpisodeMetadata())
        episode = open_episode(bag, two)
        again = sample_episode(episode, FPS, CAMERAS)
        np.testing.assert_array_equal(again.times_ns, grid.times_ns)
        np.testing.assert_array_equal(again.states, grid.states.astype(np.float32))
        np.testing.assert_array_equal(again.actions, grid.actions.astype(np.float32))
        assert again.instructions == grid.instructions
        # Each image is in the bag once, with the stamp it always had.
        shown = [stamp_ns for stamp_ns, _ in grid.cameras["top"]()]
        assert episode.image_stamps_ns("top").tolist() == sorted(set(shown))
        stamps = [stamp_ns for stamp_ns, _ in again.cameras["top"]()]
        assert stamps == shown


def test_the_files_are_those_of_the_format(exported, robot):
    path, _, grids = exported
    total = sum(len(grid.times_ns) for grid in grids)
    info = json.loads((path / "meta/info.json").read_text())
    assert (info["codebase_version"], info["total_episodes"], info["total_frames"]) == ("v3.0", 2, total)
    assert info["features"]["observation.state"] == {"dtype": "float32", "shape": [14], "names": list(robot.names)}
    assert info["features"]["observation.images.top"]["shape"] == [32, 48, 3]
    table = pq.read_table(path / "data/chunk-000/file-000.parquet")
    assert table.num_rows == total
    assert table["index"].to_pylist() == list(range(total))
    assert set(table.column_names) == {key for key, f in info["features"].items() if f["dtype"] != "video"}
    assert table.schema.field("observation.state").type == pa.list_(pa.float32(), 14)
    rows = pq.read_table(path / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    count = len(grids[0].times_ns)
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows] == [(0, count), (count, total)]
    assert rows[1]["videos/observation.images.top/from_timestamp"] == count / FPS
    assert rows[1]["tasks"] == ["push it"]
    tasks = pq.read_table(path / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    statistics = json.loads((path / "meta/stats.json").read_text())
    everything = np.concatenate([grid.states for grid in grids])
    np.testing.assert_allclose(statistics["observation.state"]["mean"], everything.mean(axis=0), atol=1e-5)
    assert np.shape(statistics["observation.images.top"]["std"]) == (3, 1, 1)
    assert rows[0]["stats/action/count"] == [count]
    with av.open(str(path / "videos/observation.images.top/chunk-000/file-000.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == total


def test_an_instruction_that_changes_on_the_way(exported, robot, tmp_path):
    _, _, grids = exported
    count = len(grids[0].times_ns)
    texts = ("lift it",) * 5 + ("put it down",) * (count - 5)
    lerobot_export.export_episodes(tmp_path / "two", "aloha", FPS, [replace(grids[0], instructions=texts)])
    back = lerobot_import.LeRobotFolder(tmp_path / "two").episode(0, {})
    assert back.instructions == texts
    bag = write_grid_episode(tmp_path / "bag", robot, back, EpisodeMetadata())
    changes = open_episode(bag, robot).instructions
    assert changes == ((int(back.times_ns[0]), "lift it"), (int(back.times_ns[5]), "put it down"))


def test_odd_sizes_and_large_files(robot, tmp_path, monkeypatch):
    """A new video begins where one is large enough; a size that is odd stays as it is."""
    monkeypatch.setattr(layout, "VIDEO_FILE_MB", 0.001)
    monkeypatch.setattr(layout, "DATA_FILE_MB", 0.0)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 31, 45, 3), dtype=np.uint8)
    times_ns = grid_times_ns(0, 19 * 20_000_000, FPS)

    def frames():
        yield from zip(times_ns.tolist(), images, strict=True)

    values = rng.normal(size=(20, 14))
    grid = GridEpisode(robot.names, times_ns, values, values, ("go",) * 20, {"top": frames})
    lerobot_export.export_episodes(tmp_path / "set", "aloha", FPS, [grid] * 3)
    files = sorted((tmp_path / "set/videos/observation.images.top/chunk-000").iterdir())
    assert len(files) >= 2
    assert len(list((tmp_path / "set/data/chunk-000").iterdir())) == 3
    folder = lerobot_import.LeRobotFolder(tmp_path / "set")
    for index in range(3):
        back = folder.episode(index, {"top": "top"})
        np.testing.assert_array_equal(back.states, values.astype(np.float32))
        assert [image.shape for _, image in back.cameras["top"]()] == [(31, 45, 3)] * 20


def rewrite(path, change):
    info = json.loads((path / "meta/info.json").read_text())
    change(info)
    (path / "meta/info.json").write_text(json.dumps(info))


def test_what_cannot_be_read_is_named(exported, tmp_path):
    path, _, _ = exported
    with pytest.raises(BagError, match=r"is no LeRobotDataset: meta/info.json cannot be read"):
        lerobot_import.LeRobotFolder(tmp_path)
    folder = lerobot_import.LeRobotFolder(path)
    with pytest.raises(BagError, match="has no episode 2; it has 0 to 1"):
        folder.episode(2, {})
    with pytest.raises(BagError, match="has no camera chest; it has left_wrist, top"):
        folder.episode(0, {"chest": "top"})
    (path / "videos/observation.images.top/chunk-000/file-000.mp4").write_bytes(b"no video")
    with pytest.raises(BagError, match=r"file-000.mp4 cannot be decoded as a video"):
        next(folder.episode(0, names()).cameras["top"]())
    (path / "data/chunk-000/file-000.parquet").unlink()
    with pytest.raises(BagError, match=r"lacks data/chunk-000/file-000.parquet"):
        folder.episode(0, {})
    rewrite(path, lambda info: info["features"]["action"].update(names=None))
    with pytest.raises(BagError, match="does not name its joints"):
        lerobot_import.LeRobotFolder(path)
    with pytest.raises(BagError, match="has 14 joints; 2 names were given"):
        lerobot_import.LeRobotFolder(path, ("a", "b"))
    rewrite(path, lambda info: info.update(codebase_version="v2.1"))
    with pytest.raises(BagError, match=r"of version 'v2\.1'; version 3 is read"):
        lerobot_import.LeRobotFolder(path)


def test_a_dataset_has_one_robot_and_one_place(exported, robot):
    path, _, grids = exported
    with pytest.raises(BagError, match="exists already"):
        lerobot_export.LeRobotWriter(path, "aloha", FPS)
    with pytest.raises(BagError, match="differ in their joints or cameras"):
        lerobot_export.export_episodes(
            path.with_name("other"), "aloha", FPS, [grids[0], replace(grids[1], names=robot.names[::-1])]
        )
    assert not path.with_name("other").exists()
    with pytest.raises(BagError, match="needs at least one"):
        lerobot_export.export_episodes(path.with_name("none"), "aloha", FPS, [])


def test_images_that_lie_in_the_table(exported):
    """Datasets without videos keep PNG files in a column."""
    import cv2

    path, _, grids = exported
    file = path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    known = [image for grid in grids for _, image in grid.cameras["top"]()]
    files = [cv2.imencode(".png", image[..., ::-1])[1].tobytes() for image in known]
    column = pa.array([{"bytes": data, "path": None} for data in files])
    pq.write_table(table.append_column("observation.images.top", column), file)
    rewrite(path, lambda info: info["features"]["observation.images.top"].update(dtype="image"))
    folder = lerobot_import.LeRobotFolder(path)
    back = [image for index in range(2) for _, image in folder.episode(index, {"top": "top"}).cameras["top"]()]
    np.testing.assert_array_equal(back, known)


def test_an_error_on_the_way_has_a_line_of_its_own(robot, tmp_path, capsys):
    """And not the rest of the progress bar's."""
    with EpisodeWriter(tmp_path / "bag", robot) as writer:
        writer.instruction(10_000_000, "go")
        for k in range(1, 9):
            now_ns = 10_000_000 * k
            writer.joint_state(now_ns, robot.names, np.zeros(14))
            writer.compressed_image("top", now_ns, encode_jpeg(np.zeros((16, 16 if k < 4 else 24, 3), np.uint8)))
            for controller in robot.controllers:
                sent = Trajectory(controller.joints, np.array([now_ns]), np.zeros((1, 7)))
                writer.command(controller.name, now_ns, sent)
    options = ["--robot", "aloha", "--camera", "top", "--out", str(tmp_path / "set")]
    assert main(["export", str(tmp_path / "bag"), *options]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: An image is 24x16, but those before were 16x16")
