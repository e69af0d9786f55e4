"""Every form in which rosbag2 stores a bag, whole and cut short."""

import shutil
from itertools import pairwise

import numpy as np
import pytest
import yaml
from backports import zstd
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer

from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.errors import BagError

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}
MODES = {"none": None, "file": CompressionMode.FILE, "message": CompressionMode.MESSAGE}
SUFFIX = {"mcap": ".mcap", "sqlite3": ".db3"}


def copy(source, path, storage="mcap", mode="none", begin=0, end=None):
    """Writes some messages of a bag in another form; types are not registered, as a foreign recorder's might not be."""
    with Reader(source) as reader:
        rows = list(reader.messages())[begin:end]
        writer = Writer(path, version=8, storage_plugin=STORAGES[storage])
        if MODES[mode]:
            writer.set_compression(MODES[mode], CompressionFormat.ZSTD)
        with writer:
            known = {
                connection.topic: writer.add_connection(
                    connection.topic, connection.msgtype, msgdef=connection.msgdef.data, rihs01=connection.digest
                )
                for connection in reader.connections
            }
            for connection, log_ns, cdr in rows:
                writer.write(known[connection.topic], log_ns, bytes(cdr))
    return path


def split(source, path, storage, parts=3):
    """A bag in several files, as ``ros2 bag record --max-bag-size`` leaves it."""
    with Reader(source) as reader:
        total = reader.message_count
    bounds = np.linspace(0, total, parts + 1).astype(int)
    path.mkdir()
    names, information = [], {}
    for k, (begin, end) in enumerate(pairwise(bounds)):
        part = copy(source, path.with_name(f"{path.name}_{k}"), storage, begin=begin, end=end)
        names.append(f"{path.name}_{k}{SUFFIX[storage]}")
        shutil.move(part / names[-1], path / names[-1])
        information = yaml.safe_load((part / "metadata.yaml").read_text())
    information["rosbag2_bagfile_information"] |= {"relative_file_paths": names, "message_count": int(total)}
    (path / "metadata.yaml").write_text(yaml.safe_dump(information))
    return path


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("mode", MODES)
def test_every_storage_and_compression_reads_the_same(recorded, robot, tmp_path, storage, mode):
    episode = open_episode(copy(recorded.path, tmp_path / "other", storage, mode), robot)
    np.testing.assert_array_equal(episode.joints.positions, recorded.positions)
    np.testing.assert_array_equal(episode.targets_at(recorded.times_ns + 20_000_000), recorded.targets)
    known = open_episode(recorded.path, robot)
    for (_, image), (_, expected) in zip(episode.frames("top"), known.frames("top"), strict=True):
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("with_metadata", [True, False])
def test_a_split_bag_is_one(recorded, robot, tmp_path, storage, with_metadata):
    path = split(recorded.path, tmp_path / "parts", storage)
    if not with_metadata:
        (path / "metadata.yaml").unlink()
    episode = open_episode(path, robot)
    np.testing.assert_array_equal(episode.joints.times_ns, recorded.times_ns)
    np.testing.assert_array_equal(episode.joints.positions, recorded.positions)
    assert len(list(episode.frames("top"))) == len(recorded.images)
    assert episode.lost == ""
    log_ns = [at for _, at, _ in BagFile(path).messages(episode.bag.topics)]
    assert log_ns == sorted(log_ns)


def test_parts_that_overlap_in_time_are_merged(recorded, robot, tmp_path):
    """Two recorders, one folder: the joint states in one file, the rest in the other."""
    path = tmp_path / "pair"
    path.mkdir()
    with Reader(recorded.path) as reader:
        rows = [(connection, log_ns, bytes(cdr)) for connection, log_ns, cdr in reader.messages()]
        for k in range(2):
            with Writer(tmp_path / f"pair_{k}", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
                mine = [row for row in rows if (row[0].topic == "/joint_states") == bool(k)]
                known = {}
                for connection, log_ns, cdr in mine:
                    if connection.topic not in known:
                        known[connection.topic] = writer.add_connection(
                            connection.topic,
                            connection.msgtype,
                            msgdef=connection.msgdef.data,
                            rihs01=connection.digest,
                        )
                    writer.write(known[connection.topic], log_ns, cdr)
            shutil.move(tmp_path / f"pair_{k}" / f"pair_{k}.mcap", path)
    bag = BagFile(path)
    log_ns = [at for _, at, _ in bag.messages(bag.topics)]
    assert log_ns == sorted(log_ns)
    assert len(log_ns) == len(rows)
    np.testing.assert_array_equal(open_episode(path, robot).joints.positions, recorded.positions)


def test_a_missing_part_is_named_and_the_others_recovered(recorded, robot, tmp_path):
    path = split(recorded.path, tmp_path / "parts", "mcap")
    (path / "parts_1.mcap").unlink()
    with pytest.raises(BagError, match=r"lacks parts_1.mcap, which its metadata.yaml names"):
        open_episode(path, robot)
    episode = open_episode(path, robot, recover=True)
    assert "lacks parts_1.mcap: " in episode.lost
    total = BagFile(recorded.path).counts.total()
    assert f"of {total} messages are lost" in episode.lost
    kept = np.isin(recorded.times_ns, episode.joints.times_ns)
    assert 0 < kept.sum() < len(kept)
    np.testing.assert_array_equal(episode.joints.positions, recorded.positions[kept])


def test_a_missing_part_is_noticed_without_metadata(recorded, robot, tmp_path):
    path = split(recorded.path, tmp_path / "parts", "mcap")
    (path / "metadata.yaml").unlink()
    assert BagFile(path).lost == ""
    (path / "parts_1.mcap").unlink()
    with pytest.raises(BagError, match=r"lacks parts_1.mcap between its files"):
        open_episode(path, robot)
    assert "lacks parts_1.mcap: " in open_episode(path, robot, recover=True).lost


def test_a_cut_part_of_a_split_bag_loses_only_its_own_end(recorded, robot, tmp_path):
    path = split(recorded.path, tmp_path / "parts", "mcap")
    middle = path / "parts_1.mcap"
    middle.write_bytes(middle.read_bytes()[:-400])
    with pytest.raises(BagError, match=r"parts_1.mcap is cut short"):
        open_episode(path, robot)
    episode = open_episode(path, robot, recover=True)
    assert episode.joints.times_ns[-1] == recorded.times_ns[-1]
    assert episode.joints.times_ns[0] == recorded.times_ns[0]


@pytest.mark.parametrize("single_file", [False, True])
def test_a_cut_sqlite_file_is_recovered_up_to_the_cut(recorded, robot, tmp_path, single_file):
    path = copy(recorded.path, tmp_path / "short", "sqlite3")
    file = path / "short.db3"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * 0.7)])
    bag = file if single_file else path
    with pytest.raises(BagError, match=r"short.db3 is cut short: \d+ messages over .* are whole"):
        open_episode(bag, robot)
    episode = open_episode(bag, robot, recover=True)
    count = len(episode.joints.times_ns)
    assert 5 < count < len(recorded.times_ns)
    np.testing.assert_array_equal(episode.joints.positions, recorded.positions[:count])
    assert ("bytes at the end are lost" in episode.lost) == single_file
    file.write_bytes(whole[:3000])
    with pytest.raises(BagError, match="cut short and holds no whole message") as caught:
        open_episode(bag, robot, recover=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_cut_packed_file_is_recovered_up_to_the_cut(recorded, robot, tmp_path, storage):
    path = copy(recorded.path, tmp_path / "packed", storage, "file")
    (file,) = path.glob("*.zstd")
    # Small blocks, so that something comes out of the first half.
    with zstd.open(file) as stream:
        plain = stream.read()
    packer = zstd.ZstdCompressor()
    blocks = [packer.compress(plain[k : k + 2000], packer.FLUSH_BLOCK) for k in range(0, len(plain), 2000)]
    packed = b"".join(blocks) + packer.flush()
    file.write_bytes(packed[: int(len(packed) * 0.8)])
    with pytest.raises(BagError, match=r"packed\.(mcap|db3) is cut short"):
        open_episode(path, robot)
    episode = open_episode(path, robot, recover=True)
    count = len(episode.joints.times_ns)
    assert 0 < count < len(recorded.times_ns)
    np.testing.assert_array_equal(episode.joints.positions, recorded.positions[:count])


def test_files_of_two_bags_without_metadata_are_not_mixed(recorded, tmp_path):
    for name in ("a", "b"):
        shutil.copy(recorded.path / "episode.mcap", tmp_path / f"{name}.mcap")
    with pytest.raises(BagError, match=r"has no metadata.yaml and 2 bag files; give one bag folder or one file"):
        BagFile(tmp_path)


def test_a_part_is_what_was_recorded_in_its_time(recorded):
    bag = BagFile(recorded.path)
    first_ns, end_ns = bag.span_ns
    assert (first_ns, end_ns) == (recorded.times_ns[0], recorded.times_ns[-1] + 1)
    cut = bag.cut(int(recorded.times_ns[4]), int(recorded.times_ns[8]))
    log_ns = [at for _, at, _ in cut.messages(["/joint_states"])]
    np.testing.assert_array_equal(log_ns, recorded.times_ns[4:8])
    assert cut.counts["/joint_states"] == 4
    assert cut.counts["/instruction"] == 0
    assert bag.counts["/joint_states"] == 20
