import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from dit_policy_ros.data.dataset import load_dataset
from dit_policy_ros.data.episode_cache import CacheConfig
from dit_policy_ros.errors import BagError
from dit_policy_ros.policy.cameras import CameraView

SOURCE = (48, 32)
WHOLE = (0.0, 0.0, 1.0, 1.0)
CONFIG = CacheConfig(
    {
        "top": CameraView("top", SOURCE, (0.0, 0.0, 0.5, 0.5), (24, 16)),
        "left_wrist": CameraView("left_wrist", SOURCE, WHOLE, (12, 8)),
    }
)


@pytest.fixture
def load(robot, tmp_path):
    return lambda config=CONFIG, spec=robot, **options: load_dataset(
        [tmp_path / "bags"], spec, config, tmp_path / "cache", progress=False, **options
    )


def build_times(cache):
    return {entry.parent.name.split("-")[0]: entry.stat().st_mtime_ns for entry in cache.glob("*/entry.json")}


def test_arrays_are_what_was_recorded(record, load):
    first, second = record("bags/a"), record("bags/b", steps=24, seed=9, instruction="push it")
    for workers in (1, 3):
        dataset = load(workers=workers)
        assert [episode.instruction for episode in dataset.episodes] == ["lift it", "push it"]
        assert dataset.episodes[1].metadata.seed == 9
        for source, episode in zip((first, second), dataset.episodes, strict=True):
            np.testing.assert_array_equal(episode.times_ns, source.times_ns)
            np.testing.assert_array_equal(episode.positions, source.positions.astype(np.float32))
            np.testing.assert_array_equal(episode.targets[1:], source.targets[:-1].astype(np.float32))
            np.testing.assert_array_equal(episode.image_stamps_ns["top"], source.image_times_ns)
            np.testing.assert_array_equal(episode.image_positions["top"], source.positions[::4].astype(np.float32))
            between_ns = (source.times_ns[:-1] + source.times_ns[1:]) // 2
            middle = (source.positions[:-1] + source.positions[1:]) / 2
            np.testing.assert_allclose(episode.positions_at(between_ns), middle, atol=1e-6)
            for original, frame in zip(source.images, episode.frames("top"), strict=True):
                assert np.abs(frame.astype(int) - original[:16, :24]).mean() < 4
    frames, offsets = dataset.stack("left_wrist")
    assert frames.shape == (11, 8, 12, 3)
    assert offsets.tolist() == [0, 5, 11]
    np.testing.assert_array_equal(frames[5:], dataset.episodes[1].frames("left_wrist"))
    positions, targets = dataset.statistics()
    together = np.concatenate([first.positions, second.positions])
    np.testing.assert_allclose(positions.mean, together.mean(axis=0), rtol=1e-5)
    assert targets.count == 44


def test_only_a_changed_bag_is_read_again(record, load, tmp_path, robot):
    record("bags/a")
    changed = record("bags/b")
    load()
    before = build_times(tmp_path / "cache")
    load()
    assert build_times(tmp_path / "cache") == before

    os.utime(changed.path / "b.mcap", ns=(1, 1))
    load()
    assert build_times(tmp_path / "cache") == before, "same bytes, other time"

    shutil.rmtree(changed.path)
    record("bags/b", seed=11)
    dataset = load()
    after = build_times(tmp_path / "cache")
    assert (after["a"], after["b"] > before["b"]) == (before["a"], True)
    assert dataset.episodes[1].metadata.seed == 11

    load(config=replace(CONFIG, step_ns=10_000_000))
    views = {camera: replace(view, box=(0.0, 0.0, 0.5, 0.75)) for camera, view in CONFIG.views.items()}
    assert load(config=replace(CONFIG, views=views)).episodes[0].frames("top").shape[1:] == (16, 24, 3)
    again = build_times(tmp_path / "cache")
    assert again["a"] > after["a"]
    assert again["b"] > after["b"]
    entry = json.loads(next((tmp_path / "cache").glob("a-*/entry.json")).read_text())
    assert all(len(file["sha256"]) == 64 for file in entry["files"].values())


def test_a_half_built_entry_is_built_again(record, load, tmp_path):
    record("bags/a")
    load()
    (folder,) = (tmp_path / "cache").iterdir()
    (folder / "entry.json").unlink()
    (tmp_path / "cache" / f"{folder.name}.building").mkdir()
    assert len(load().episodes) == 1
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [folder.name]


def test_bad_datasets(record, load, tmp_path, robot):
    with pytest.raises(BagError, match="no rosbag2 folder below"):
        load()
    bag = record("bags/a").path
    with pytest.raises(BagError, match="Camera 'side' does not exist"):
        load(CacheConfig({"side": CameraView("side", SOURCE, WHOLE, (8, 8))}))
    with pytest.raises(BagError, match="Camera 'right_wrist' does not exist"):
        load().stack("right_wrist")
    with pytest.raises(BagError, match=r"bags/a: Camera top gave an image of \(32, 48, 3\) uint8"):
        load(CacheConfig({"top": CameraView("top", (640, 480), WHOLE, (24, 16))}))
    shutil.copytree(bag, tmp_path / "bags" / "unfinished.writing" / "c")
    assert len(load().episodes) == 1
    record("bags/b", instruction=None)
    with pytest.raises(BagError, match=r"bags/b has no instruction"):
        load()
