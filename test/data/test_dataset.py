import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.dataset import load_dataset
from dit_policy_ros.data.episode_cache import CacheConfig
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.errors import BagError
from dit_policy_ros.policy.cameras import CameraView
from dit_policy_ros.types import Observation, Trajectory

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
    assert [episode.frames("left_wrist").shape for episode in dataset.episodes] == [(5, 8, 12, 3), (6, 8, 12, 3)]
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
    with pytest.raises(BagError, match=r"bags/a: Camera top gave an image of \(32, 48, 3\) uint8"):
        load(CacheConfig({"top": CameraView("top", (640, 480), WHOLE, (24, 16))}))
    shutil.copytree(bag, tmp_path / "bags" / "unfinished.writing" / "c")
    assert len(load().episodes) == 1
    record("bags/b", instruction=None)
    with pytest.raises(BagError, match=r"bags/b has no instruction"):
        load()


def test_a_bag_that_lost_its_metadata_is_not_left_out(record, load):
    record("bags/a")
    bag = record("bags/b", steps=24).path
    (bag / "metadata.yaml").unlink()
    assert [len(episode.times_ns) for episode in load().episodes] == [20, 24]


def test_each_instant_has_the_instruction_that_held_then(robot, tmp_path, record, load):
    source = record("bags/a", steps=24)
    first_ns, second_ns = int(source.times_ns[0]), int(source.times_ns[10])
    shutil.rmtree(source.path)
    metadata = EpisodeMetadata(surprises_ns=(int(source.times_ns[15]),))
    with EpisodeWriter(source.path, robot, metadata) as writer:
        for k, now_ns in enumerate(source.times_ns.tolist()):
            if k in (0, 5, 10):
                writer.instruction(now_ns, "put it down" if k == 10 else "lift it")
            shown = {} if k % 4 else dict.fromkeys(CONFIG.views, source.images[k // 4])
            joints = dict(zip(robot.names, source.positions[k].tolist(), strict=True))
            writer.observation(Observation(now_ns, joints, joints, shown))
            for controller in robot.controllers:
                hold = np.zeros((1, len(controller.joints)))
                writer.command(controller.name, now_ns, Trajectory(controller.joints, np.array([now_ns]), hold))
    for _ in range(2):  # Built, then from the cache.
        (episode,) = load().episodes
        assert episode.instruction == "lift it"
        assert episode.instructions == ((first_ns, "lift it"), (second_ns, "put it down"))
        said = [episode.instruction_at(now_ns) for now_ns in (first_ns - 1, second_ns - 1, second_ns)]
        assert said == ["lift it", "lift it", "put it down"]
        assert [episode.instruction_index_at(now_ns) for now_ns in (first_ns - 1, second_ns)] == [0, 1]
        counts = [episode.foreseeable(int(source.times_ns[k]), source.times_ns).sum() for k in (0, 9, 10, 14, 15)]
        assert counts == [10, 10, 5, 5, 9]
    # What an earlier version cached knew one instruction and no surprises.
    (file,) = (tmp_path / "cache").glob("*/entry.json")
    entry = json.loads(file.read_text())
    del entry["instructions"], entry["metadata"]["surprises_ns"], entry["metadata"]["answers_ns"]
    file.write_text(json.dumps(entry))
    (episode,) = load().episodes
    assert episode.instruction_at(second_ns) == "lift it"
    assert episode.foreseeable(0, source.times_ns).all()


def test_until_the_answer_commands_are_right_for_what_was_seen_before_the_surprise(record, load):
    source = record("bags/a", steps=24)
    (episode,) = load().episodes
    surprise_ns, answer_ns = int(source.times_ns[8]), int(source.times_ns[14])
    metadata = replace(episode.metadata, surprises_ns=(surprise_ns,), answers_ns=(answer_ns,))
    late = replace(episode, metadata=metadata)
    before, after = (late.foreseeable(int(source.times_ns[k]), source.times_ns) for k in (7, 8))
    np.testing.assert_array_equal(np.flatnonzero(before), np.arange(14))
    np.testing.assert_array_equal(np.flatnonzero(after), np.arange(14, 24))


def test_episodes_of_one_bag_are_apart(record, load, robot):
    source = record("bags/two", steps=40)
    cut_ns = int(source.times_ns[20])
    file = source.path / "metadata.yaml"
    spans = [[int(source.times_ns[0]), cut_ns], [cut_ns, int(source.times_ns[-1]) + 1]]
    entry = f"dit_policy_ros.episodes: '{json.dumps(spans)}'"
    file.write_text(file.read_text().replace("dit_policy_ros.robot:", f"{entry}\n    dit_policy_ros.robot:"))
    first, second = load().episodes
    np.testing.assert_array_equal(first.positions, source.positions[:20].astype(np.float32))
    np.testing.assert_array_equal(second.positions, source.positions[20:].astype(np.float32))
    assert first.folder != second.folder
    assert second.instruction == "lift it"
    assert len(first.frames("top")) == len(second.frames("top")) == 5
