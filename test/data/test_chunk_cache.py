"""Unpacked chunks that are kept: the same messages, and never more memory than allowed."""

import lz4.frame
import numpy as np
import pytest
from backports import zstd
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from dit_policy_ros.data import chunk_cache, messages
from dit_policy_ros.data.chunk_cache import ChunkCache
from dit_policy_ros.data.mcap_index import McapIndex
from dit_policy_ros.errors import BagError

TOPICS = ("/a", "/b", "/c")
ALWAYS = (-(1 << 62), 1 << 62)


def write(path, packed, noise=True, count=1500):
    """About a dozen chunks with three topics in each."""
    generator = np.random.default_rng(5)
    writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
    if packed:
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        store = messages.typestore()
        lines = [writer.add_connection(topic, messages.STRING, typestore=store) for topic in TOPICS]
        for k in range(count):
            size = int(generator.integers(0, 16_000))
            text = generator.integers(32, 127, size, dtype=np.uint8).tobytes().decode() if noise else "x" * size
            writer.write(lines[k % 3], 1000 * k, store.serialize_cdr(messages.string(text), messages.STRING))
    return next(path.glob("*.mcap"))


@pytest.fixture(scope="module", params=[True, False], ids=["packed", "plain"])
def file(request, tmp_path_factory):
    return write(tmp_path_factory.mktemp("bags") / "bag", request.param)


@pytest.fixture
def loads(monkeypatch):
    """Returns a list that grows with every chunk that is unpacked."""
    places = []
    unpack = chunk_cache._unpack
    monkeypatch.setattr(chunk_cache, "_unpack", lambda *given: places.append(given[-1]) or unpack(*given))
    return places


@pytest.mark.parametrize("limit_bytes", [0, 3 << 20, 1 << 30])
def test_what_is_read_does_not_depend_on_what_is_kept(file, limit_bytes):
    expected = list(McapIndex(file, ChunkCache(1 << 30)).messages(TOPICS, *ALWAYS))
    assert len(expected) == 1500
    index = McapIndex(file, ChunkCache(limit_bytes))
    for topic in TOPICS * 2:
        assert list(index.messages([topic], *ALWAYS)) == [message for message in expected if message[0] == topic]
    side_by_side = zip(*(index.messages([topic], *ALWAYS) for topic in TOPICS), strict=True)
    assert [message for row in side_by_side for message in row] == expected


def test_cameras_that_are_read_side_by_side_unpack_a_chunk_once(file, loads):
    index = McapIndex(file, ChunkCache(4 << 20))
    count = len(index._places)
    assert count > 8
    for _ in zip(*(index.messages([topic], *ALWAYS) for topic in TOPICS), strict=True):
        pass
    assert len(loads) == count
    for topic in TOPICS:
        list(index.messages([topic], *ALWAYS))
    assert len(loads) == 4 * count


def test_memory_stays_below_the_limit_and_is_used_again(file, monkeypatch):
    cache = ChunkCache(4 << 20)
    index = McapIndex(file, cache)
    memories = set()
    for _ in index.messages(TOPICS, *ALWAYS):
        assert cache.size_bytes <= cache.limit_bytes
        memories |= {id(chunk.records) for chunk in cache._chunks.values()}
    assert 2 <= len(cache) < len(index._places)
    # One more than are kept at most, not one for every chunk.
    assert len(memories) <= len(cache) + 1
    cache.clear()
    assert cache.size_bytes == 0


def test_a_chunk_that_is_larger_than_the_limit_is_the_only_one(file):
    cache = ChunkCache(1000)
    for _ in McapIndex(file, cache).messages(TOPICS, *ALWAYS):
        assert len(cache) == 1


def test_a_large_chunk_does_not_crowd_out_the_smaller_ones_after_it(file, tmp_path):
    cache = ChunkCache(4 << 20)
    with Writer(tmp_path / "large", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        store = messages.typestore()
        line = writer.add_connection("/a", messages.STRING, typestore=store)
        writer.write(line, 0, store.serialize_cdr(messages.string("x" * (6 << 20)), messages.STRING))
    assert len(list(McapIndex(tmp_path / "large" / "large.mcap", cache).messages(["/a"], *ALWAYS))) == 1
    assert cache.size_bytes > cache.limit_bytes
    list(McapIndex(file, cache).messages(TOPICS, *ALWAYS))
    assert len(cache) >= 2
    assert cache.size_bytes <= cache.limit_bytes


def test_files_share_a_cache_and_are_not_mixed_up(tmp_path):
    """Parts of a split bag have their chunks at the same places."""
    cache = ChunkCache(1 << 30)
    one, other = (write(tmp_path / name, True, noise, count=300) for name, noise in (("one", True), ("other", False)))
    for path in (one, other):
        alone = list(McapIndex(path, ChunkCache(1 << 30)).messages(TOPICS, *ALWAYS))
        assert list(McapIndex(path, cache).messages(TOPICS, *ALWAYS)) == alone


def test_after_a_damaged_chunk_others_are_read(file, tmp_path):
    cache = ChunkCache(2 << 20)
    data = bytearray(file.read_bytes())
    place = McapIndex(file)._places[0]
    data[place + 25] ^= 0xFF  # Of the uncompressed size.
    (tmp_path / "bad.mcap").write_bytes(data)
    caught = []
    for _ in range(2):
        with pytest.raises(BagError, match="a chunk at byte") as problem:
            list(McapIndex(tmp_path / "bad.mcap", cache).messages(TOPICS, *ALWAYS))
        # As long as somebody looks at the exception, it holds on to the memory of the chunk.
        caught.append(problem)
    assert len(list(McapIndex(file, cache).messages(TOPICS, *ALWAYS))) == 1500


@pytest.mark.parametrize("name", ["zstd", "lz4", "", "unknown"])
def test_every_compression_in_pieces(name):
    data = np.random.default_rng(0).integers(0, 8, 300_000, dtype=np.uint8).tobytes()
    pack = {"zstd": zstd.compress, "lz4": lz4.frame.compress}.get(name, bytes)
    for records in (bytearray(), bytearray(400_000)):
        assert chunk_cache._unpack(memoryview(pack(data)), name, records, len(data)) == len(data)
        assert records[: len(data)] == data
    if name in ("zstd", "lz4"):
        # Two frames, one that is cut short, and one that is larger than it says.
        two = pack(data[:1000]) + pack(data[1000:])
        assert chunk_cache._unpack(memoryview(two), name, records := bytearray(), len(data)) == len(data)
        assert records == data
        assert chunk_cache._unpack(memoryview(pack(data)[:-20]), name, bytearray(), len(data)) == -1
        assert chunk_cache._unpack(memoryview(pack(data)), name, bytearray(), 70_000) > 70_000
