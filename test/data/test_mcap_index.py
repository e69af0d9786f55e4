"""Whole MCAP files through their index of chunks, against the reader of rosbags."""

import struct

import numpy as np
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.data.mcap_index import McapIndex
from dit_policy_ros.errors import BagError

TOPICS = ("/a", "/b", "/c")


@pytest.fixture
def unsorted(tmp_path):
    """Returns a file of many small chunks that overlap: recorded by threads, and flushed late."""
    generator = np.random.default_rng(5)
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP)
    with writer:
        store = messages.typestore()
        lines = [writer.add_connection(topic, messages.STRING, typestore=store) for topic in TOPICS]
        for k in range(3000):
            log_ns = 1_000 * k + int(generator.integers(0, 400_000))
            text = messages.string(f"{k} " + "x" * int(generator.integers(0, 3000)))
            writer.write(lines[k % 2], log_ns, store.serialize_cdr(text, messages.STRING))
    return next((tmp_path / "bag").glob("*.mcap"))


def test_messages_come_as_rosbags_reads_them(unsorted):
    index = McapIndex(unsorted)
    assert index.is_complete
    assert len(index._places) > 3
    for topics in (TOPICS, ("/a",), ("/c",), ()):
        with Reader(unsorted) as reader:
            lines = [line for line in reader.connections if line.topic in topics]
            expected = (
                [(line.topic, log_ns, bytes(cdr)) for line, log_ns, cdr in reader.messages(lines)] if lines else []
            )
        found = list(index.messages(topics, -(1 << 62), 1 << 62))
        assert [log_ns for _, log_ns, _ in found] == [log_ns for _, log_ns, _ in expected]
        assert sorted(found) == sorted(expected)
    assert +index.counts == {"/a": 1500, "/b": 1500}


def test_only_what_was_recorded_between_two_instants_is_read(unsorted):
    index = McapIndex(unsorted)
    every = list(index.messages(TOPICS, -(1 << 62), 1 << 62))
    assert (index.start_ns, index.end_ns) == (every[0][1], every[-1][1] + 1)
    start_ns, stop_ns = every[700][1], every[1500][1]
    expected = [message for message in every if start_ns <= message[1] < stop_ns]
    assert list(index.messages(TOPICS, start_ns, stop_ns)) == expected


def test_several_passes_at_once_do_not_disturb_each_other(unsorted):
    bag = BagFile(unsorted)
    pairs = list(zip(bag.messages(["/a"]), bag.messages(["/a"]), strict=True))
    assert len(pairs) == 1500
    assert all(one == other for one, other in pairs)


def test_a_damaged_chunk_is_noticed(unsorted):
    index = McapIndex(unsorted)
    data = bytearray(unsorted.read_bytes())
    place = index._places[1]
    # No checksum of that writer tells; a chunk of another size than it says does.
    struct.pack_into("<Q", data, place + 9 + 16, struct.unpack_from("<Q", data, place + 9 + 16)[0] - 1)
    unsorted.write_bytes(data)
    with pytest.raises(BagError, match="a chunk at byte"):
        list(BagFile(unsorted).messages(TOPICS))


def test_a_file_without_an_index_of_chunks_is_read_all_the_same(unsorted):
    """As ``ros2 bag record --storage-preset-profile fastwrite`` leaves it."""
    data = bytearray(unsorted.read_bytes())
    struct.pack_into("<QQI", data, len(data) - 28, 0, 0, 0)
    unsorted.write_bytes(data)
    assert not McapIndex(unsorted).is_complete
    assert +BagFile(unsorted).counts == {"/a": 1500, "/b": 1500}
