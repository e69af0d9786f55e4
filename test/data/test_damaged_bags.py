"""Bags with damage in the middle: what is whole is read, what is lost is told, nothing is passed over in silence."""

import random
import shutil
import struct
import zlib
from collections import Counter
from dataclasses import dataclass

import apsw
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer

from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.images import encode_jpeg
from dit_policy_ros.data.inspection import inspect_bag
from dit_policy_ros.data.losses import Loss, told
from dit_policy_ros.data.mcap_index import McapIndex
from dit_policy_ros.data.recorded_body import RecordedBody
from dit_policy_ros.errors import BagError, DitPolicyError
from dit_policy_ros.types import Trajectory

MS = 1_000_000
STEPS = 150
FORMS = {
    "mcap": (StoragePlugin.MCAP, None),
    "mcap packed": (StoragePlugin.MCAP, CompressionMode.STORAGE),
    "mcap packed by file": (StoragePlugin.MCAP, CompressionMode.FILE),
    "mcap packed by message": (StoragePlugin.MCAP, CompressionMode.MESSAGE),
    "sqlite3": (StoragePlugin.SQLITE3, None),
    "sqlite3 packed by file": (StoragePlugin.SQLITE3, CompressionMode.FILE),
    "sqlite3 packed by message": (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
}


@dataclass(frozen=True)
class Source:
    """Every message of a bag of several chunks."""

    rows: list
    """(topic, type, log time [ns], CDR)"""

    @property
    def stamps(self):
        return Counter((topic, log_ns) for topic, _, log_ns, _ in self.rows)


@pytest.fixture(scope="module")
def source(robot, tmp_path_factory):
    """A bag of 3 s and about 4 MB: images of noise, so that no compression makes them small."""
    path = tmp_path_factory.mktemp("source") / "bag"
    generator = np.random.default_rng(3)
    with EpisodeWriter(path, robot) as writer:
        for k in range(STEPS):
            now_ns = 1000 * MS + 20 * MS * k
            if k % 10 == 0:
                writer.instruction(now_ns, "go on")
            writer.joint_state(now_ns, robot.names, generator.normal(size=14))
            for controller in robot.controllers:
                sent = Trajectory(controller.joints, np.array([now_ns + 20 * MS]), generator.normal(size=(1, 7)))
                writer.command(controller.name, now_ns, sent)
            if k % 3 == 0:
                for camera in robot.cameras:
                    noise = generator.integers(0, 256, (120, 160, 3), dtype=np.uint8)
                    writer.compressed_image(camera, now_ns, encode_jpeg(noise))
    with Reader(path) as reader:
        return Source([(line.topic, line.msgtype, at, bytes(cdr)) for line, at, cdr in reader.messages()])


@pytest.fixture(scope="module")
def bag_of(source, tmp_path_factory):
    """Returns a function (form) that gives a bag of this form; it is not to be changed."""
    known = {}

    def write(form):
        if form not in known:
            storage, mode = FORMS[form]
            writer = Writer(tmp_path_factory.mktemp("bags") / "run", version=8, storage_plugin=storage)
            if mode:
                writer.set_compression(mode, CompressionFormat.ZSTD)
            with writer:
                lines = {}
                for topic, kind, log_ns, cdr in source.rows:
                    if topic not in lines:
                        lines[topic] = writer.add_connection(topic, kind, typestore=messages.typestore())
                    writer.write(lines[topic], log_ns, cdr)
            known[form] = writer.path
        return known[form]

    return write


def storage_of(bag):
    return next(file for file in bag.iterdir() if file.name != "metadata.yaml")


@pytest.fixture
def damaged(bag_of, tmp_path):
    """Returns a function (form, change of the bytes, with metadata) that gives a changed copy of a bag."""

    def make(form, change, with_metadata=True):
        bag = shutil.copytree(bag_of(form), tmp_path / "run")
        file = storage_of(bag)
        data = bytearray(file.read_bytes())
        file.write_bytes(change(data) or data)
        if not with_metadata:
            (bag / "metadata.yaml").unlink()
        return bag

    return make


def read(bag):
    """Returns (log times of every topic, what is said to be lost)."""
    opened = BagFile(bag, recover=True)
    found = Counter((topic, log_ns) for topic, log_ns, _ in opened.messages(opened.topics))
    lost = opened.lost
    assert not lost or opened.counts.total() == found.total()
    return found, lost


def zero(begin, length):
    def change(data):
        data[begin : begin + length] = bytes(length)

    return change


CHANGES = {
    "noise": lambda data, at, r: data[:at] + r.randbytes(3000) + data[at + 3000 :],
    "zeros": lambda data, at, r: data[:at] + bytes(6000) + data[at + 6000 :],
    "page": lambda data, at, r: data[: at - at % 4096] + r.randbytes(4096) + data[at - at % 4096 + 4096 :],
    "bit": lambda data, at, r: data[:at] + bytes([data[at] ^ 1 << r.randrange(8)]) + data[at + 1 :],
    "left out": lambda data, at, r: data[:at] + data[at + 777 :],
    "put in": lambda data, at, r: data[:at] + r.randbytes(99) + data[at:],
    "cut off": lambda data, at, r: data[:at],
    "end": lambda data, at, r: data[: -at % 5000 - 5001] + r.randbytes(20) + data[-at % 5000 - 4981 :],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", CHANGES)
def test_damage_anywhere_is_told(damaged, source, robot, form, kind):
    r = random.Random(f"{form} {kind}")
    bag = damaged(form, lambda data: CHANGES[kind](bytes(data), r.randrange(len(data)), r), "message" in form)
    lost = []

    def recover():
        found, text = read(bag)
        lost.append(text)
        assert text or not source.stamps - found
        inspection = inspect_bag(bag, robot)
        assert bool(text) == any("are whole" in finding.text for finding in inspection.findings)

    def replay():
        episode = open_episode(bag, robot, recover=True)
        body = RecordedBody(episode, tuple(robot.cameras), 50 * MS)
        while not body.is_over:
            body.observe(tuple(robot.cameras))
            body.step()
        assert bool(lost[0]) <= bool(episode.lost)

    def read_whole():
        episode = open_episode(bag, robot)
        assert all(list(episode.encoded_frames(camera)) for camera in robot.cameras)

    for call in (recover, replay, read_whole):
        text = refusal(call)
        assert "\n" not in text
        assert len(text) < 3000
        assert "/dit_policy_ros_" not in text, "names an unpacked copy"
    assert not (lost and lost[0]) or "whole" in refusal(read_whole)


def refusal(call):
    """Returns the text of the error, or nothing."""
    try:
        call()
    except DitPolicyError as problem:
        return str(problem)
    return ""


@pytest.mark.parametrize("form", ["mcap", "mcap packed"])
def test_a_damaged_chunk_costs_only_what_it_held(damaged, bag_of, source, robot, form):
    index = McapIndex(storage_of(bag_of(form)))
    begin_ns, end_ns = index._first_ns[1], index._last_ns[1]
    with storage_of(bag_of(form)).open("rb") as file, index._sound(file, 1) as chunk:
        counts = {index._channels[key]: len(spots) // 3 for key, spots in chunk.spots.items()}
    bag = damaged(form, zero(index._places[1] + 100, 30_000))
    found, lost = read(bag)
    missing = source.stamps - found
    assert Counter(topic for topic, _ in missing.elements()) == counts
    assert {log_ns for _, log_ns in missing} <= set(range(begin_ns, end_ns + 1, 20 * MS))
    start_ns = 1000 * MS
    assert f"a chunk at byte {index._places[1]} cannot be read" in lost
    assert f"({(begin_ns - start_ns) * 1e-9:.2f} s to {(end_ns - start_ns) * 1e-9:.2f} s: " in lost
    assert ", ".join(f"{n} of {topic}" for topic, n in sorted(counts.items())) in lost
    total, whole = len(source.rows), found.total()
    assert lost.endswith(f": {whole} messages over 2.98 s are whole, {total - whole} of {total} messages are lost")
    with pytest.raises(BagError, match=r"a chunk at byte .* cannot be read .*; inspect and replay use what is whole"):
        open_episode(bag, robot)
    (finding,) = [finding for finding in inspect_bag(bag, robot).findings if finding.subject == "file"]
    assert (finding.severity, finding.text) == ("error", lost)
    episode = open_episode(bag, robot, recover=True)
    assert episode.lost == lost
    assert len(episode.joints.times_ns) == STEPS - counts["/joint_states"]
    assert len(list(episode.frames("top"))) == STEPS // 3 - counts["/top/image_raw/compressed"]


def with_checksums(data):
    """Puts the checksums into the heads of chunks that are not compressed."""
    at = 8
    while data[at] != 0x0F:
        (length,) = struct.unpack_from("<Q", data, at + 1)
        if data[at] == 0x06:
            struct.pack_into("<I", data, at + 9 + 24, zlib.crc32(data[at + 9 + 40 : at + 9 + length]))
        at += 9 + length
    return data


def test_one_wrong_bit_under_a_checksum_is_noticed(damaged, source):
    found, lost = read(damaged("mcap", with_checksums))
    assert (found, lost) == (source.stamps, "")


def test_one_wrong_bit_under_a_checksum_is_told(damaged, source):
    def change(data):
        with_checksums(data)
        data[len(data) // 2] ^= 4

    found, lost = read(damaged("mcap", change))
    assert 0 < (source.stamps - found).total() < len(source.rows)
    assert "a chunk at byte" in lost


@pytest.mark.parametrize("form", ["mcap", "mcap packed"])
def test_a_garbled_head_of_a_chunk(damaged, bag_of, source, form):
    place = McapIndex(storage_of(bag_of(form)))._places[1]
    found, lost = read(damaged(form, zero(place, 60)))
    assert 0 < (source.stamps - found).total() < len(source.rows)
    assert f"a chunk at byte {place} cannot be read" in lost


@pytest.mark.parametrize("form", ["mcap", "mcap packed"])
def test_damage_in_a_file_that_is_also_cut(damaged, bag_of, source, form):
    """Without an index, what comes after is found by how records begin."""
    index = McapIndex(storage_of(bag_of(form)))

    def change(data):
        data[index._places[1] : index._places[1] + 60] = bytes(60)
        return data[: index._places[2] + 400_000]

    found, lost = read(damaged(form, change))
    assert "is cut short" in lost
    assert f"bytes at byte {index._places[1]}" in lost
    assert form == "mcap packed" or max(log_ns for _, log_ns in found) > index._first_ns[2]
    assert not found - source.stamps


def test_a_damaged_index_costs_no_message(damaged, source):
    found, lost = read(damaged("mcap packed", lambda data: data[:-2000] + bytes(1000) + data[-1000:]))
    assert found == source.stamps
    assert lost.endswith(f"has a damaged index: {len(source.rows)} messages over 2.98 s are whole, "
                         f"0 of {len(source.rows)} messages are lost")  # fmt: skip


def test_topics_are_found_in_the_summary_where_the_first_chunk_is_damaged(damaged, bag_of, source):
    """The summary lies elsewhere than the file's end says, because bytes are missing."""
    index = McapIndex(storage_of(bag_of("mcap packed")))

    def change(data):
        del data[index._places[0] + 5000 : index._places[0] + 6000]

    found, lost = read(damaged("mcap packed", change))
    assert min(log_ns for _, log_ns in found) >= index._first_ns[1]
    assert {topic for topic, _ in found} == {topic for topic, *_ in source.rows}
    assert "is damaged" in lost


def test_a_wrong_name_in_the_summary_is_noticed(damaged, source):
    """No checksum covers the summary of this writer."""

    def change(data):
        at = data.rindex(b"/joint_states")
        data[at + 3] ^= 64

    found, lost = read(damaged("mcap packed", change))
    assert found == source.stamps
    assert "has a damaged index" in lost


def leaf_of(file, row):
    """Returns the page of the table of messages that holds a row."""
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'messages'").fetchone()
    connection.close()
    data = file.read_bytes()
    (size,) = struct.unpack_from(">H", data, 16)
    page = root
    while data[(page - 1) * size] == 5:  # An inner page of a table.
        at = (page - 1) * size
        (cells, last) = struct.unpack_from(">H", data, at + 3)[0], struct.unpack_from(">I", data, at + 8)[0]
        for k in range(cells):
            (cell,) = struct.unpack_from(">H", data, at + 12 + 2 * k)
            (left,) = struct.unpack_from(">I", data, at + cell)
            key, shift = 0, at + cell + 4
            while True:
                key = key << 7 | data[shift] & 127
                if not data[shift] & 128:
                    break
                shift += 1
            if row <= key:
                last = left
                break
        page = last
    return page, size


@pytest.mark.parametrize("with_metadata", [True, False])
def test_a_damaged_page_of_sqlite_costs_only_its_rows(damaged, bag_of, source, robot, with_metadata):
    page, size = leaf_of(storage_of(bag_of("sqlite3")), 150)
    bag = damaged("sqlite3", zero((page - 1) * size, size), with_metadata)
    found, lost = read(bag)
    missing = source.stamps - found
    assert 0 < missing.total() < 30
    assert not found - source.stamps
    assert source.rows[149][0::2][0] in {topic for topic, _ in missing}
    assert "run.db3 is damaged, rows " in lost
    counts = Counter(topic for topic, _ in missing.elements())
    told_topics = ", ".join(f"{n} of {topic}" for topic, n in sorted(counts.items()))
    assert (told_topics if with_metadata else "unknown topics") in lost
    with pytest.raises(BagError, match=r"run.db3 is damaged, rows .* cannot be read"):
        open_episode(bag, robot)
    episode = open_episode(bag, robot, recover=True)
    assert episode.lost == lost
    assert len(episode.joints.times_ns) == STEPS - counts["/joint_states"]


def test_rows_that_a_page_forgot_are_known_by_the_index_of_times(damaged, bag_of, source):
    """A page that says it is empty is none that SQLite takes for damaged."""
    page, size = leaf_of(storage_of(bag_of("sqlite3")), 150)
    found, lost = read(damaged("sqlite3", zero((page - 1) * size + 3, 2)))
    missing = sorted(log_ns for _, log_ns in source.stamps - found)
    assert missing
    first_s, last_s = ((log_ns - 1000 * MS) * 1e-9 for log_ns in (missing[0], missing[-1]))
    assert f"cannot be read ({first_s:.2f} s to {last_s:.2f} s: " in lost


def test_rows_that_were_deleted_on_purpose_are_no_damage(damaged, source):
    bag = damaged("sqlite3", lambda data: None, with_metadata=False)
    connection = apsw.Connection(str(storage_of(bag)))
    connection.execute("DELETE FROM messages WHERE topic_id = (SELECT id FROM topics WHERE name = '/instruction')")
    connection.close()
    found, lost = read(bag)
    assert {topic for topic, _ in source.stamps - found} == {"/instruction"}
    assert lost == ""


def test_damage_in_the_data_of_one_row_costs_that_row(damaged, bag_of, source):
    """A page that only goes on with a large message; its first bytes say where the next one is."""
    data = storage_of(bag_of("sqlite3")).read_bytes()
    jpeg = next(cdr for topic, _, _, cdr in source.rows[200:] if "image" in topic)
    place = data.index(jpeg[5000:5100]) // 4096 * 4096
    found, lost = read(damaged("sqlite3", lambda changed: changed[:place] + b"\xff" * 8 + changed[place + 8 :]))
    assert (source.stamps - found).total() == 1
    ((topic, log_ns),) = source.stamps - found
    assert f"cannot be read ({(log_ns - 1000 * MS) * 1e-9:.2f} s to" in lost
    assert f"1 of {topic}" in lost


def test_rows_out_of_order_are_sorted_and_damage_among_them_is_told(damaged, source, tmp_path):
    """As two threads record: each row at most 300 ms late."""
    generator = random.Random(1)
    late = sorted(source.rows, key=lambda row: row[2] + generator.randrange(300) * MS)
    with Writer(tmp_path / "late", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        lines = {}
        for topic, kind, log_ns, cdr in late:
            if topic not in lines:
                lines[topic] = writer.add_connection(topic, kind, typestore=messages.typestore())
            writer.write(lines[topic], log_ns, cdr)
    bag = BagFile(tmp_path / "late")
    times_ns = [log_ns for _, log_ns, _ in bag.messages(bag.topics)]
    assert times_ns == sorted(log_ns for _, _, log_ns, _ in source.rows)
    part = bag.cut(1300 * MS, 1500 * MS)
    assert part.counts == Counter(topic for topic, _, log_ns, _ in source.rows if 1300 * MS <= log_ns < 1500 * MS)
    file = storage_of(tmp_path / "late")
    page, size = leaf_of(file, 150)
    data = bytearray(file.read_bytes())
    zero((page - 1) * size, size)(data)
    file.write_bytes(data)
    found, lost = read(tmp_path / "late")
    assert 0 < (source.stamps - found).total() < 30
    assert "rows " in lost


def test_a_damaged_packed_file_says_so(damaged, source):
    found, lost = read(damaged("mcap packed by file", lambda data: data[: len(data) // 2] + data[len(data) // 2 + 9 :]))
    assert "is damaged in its compression at byte" in lost
    assert 0 < found.total() < len(source.rows)


def test_a_damaged_packed_message_costs_only_itself(damaged, source, robot):
    bag = damaged("sqlite3 packed by message", lambda data: None)
    connection = apsw.Connection(str(storage_of(bag)))
    ((row, log_ns),) = connection.execute(
        "SELECT messages.id, timestamp FROM messages JOIN topics ON topic_id = topics.id "
        "WHERE name = '/joint_states' LIMIT 1 OFFSET 40"
    )
    connection.execute("UPDATE messages SET data = ? WHERE id = ?", (b"\x28\xb5\x2f\xfd" + bytes(50), row))
    connection.close()
    found, lost = read(bag)
    assert source.stamps - found == Counter({("/joint_states", log_ns): 1})
    assert "a packed message on /joint_states cannot be read" in lost
    with pytest.raises(BagError, match="a packed message on /joint_states cannot be read"):
        open_episode(bag, robot)
    assert len(open_episode(bag, robot, recover=True).joints.times_ns) == STEPS - 1


def test_messages_and_images_that_are_not_understood_are_left_out_and_told(source, robot, tmp_path):
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        lines, seen = {}, Counter()
        for topic, kind, log_ns, cdr in source.rows:
            if topic not in lines:
                lines[topic] = writer.add_connection(topic, kind, typestore=messages.typestore())
            seen[topic] += 1
            if (topic, seen[topic]) == ("/joint_states", 20):
                cdr = cdr[:30]
            elif (topic, seen[topic]) == ("/top/image_raw/compressed", 10):
                cdr = cdr[: len(cdr) // 2] if len(cdr) < 100 else cdr[:60] + bytes(len(cdr) - 60)
            writer.write(lines[topic], log_ns, cdr)
    with pytest.raises(BagError, match="is no whole sensor_msgs/msg/JointState"):
        open_episode(tmp_path / "bag", robot)
    episode = open_episode(tmp_path / "bag", robot, recover=True)
    assert len(episode.joints.times_ns) == STEPS - 1
    assert "a message on /joint_states cannot be read (0.38 s to 0.38 s: 1 of /joint_states)" in episode.lost
    body = RecordedBody(episode, ("top",), 20 * MS)
    stamps = []
    while not body.is_over:
        stamps += list(body.observe(("top",)).image_stamps_ns.values())
        body.step()
    bad_ns = 1000 * MS + 9 * 60 * MS
    assert bad_ns not in stamps
    assert bad_ns - 60 * MS in stamps
    assert "a message on /top/image_raw/compressed" in episode.lost


def test_losses_are_told_shortly():
    losses = [Loss(f"a chunk at byte {k}", k * 10**9, (k + 1) * 10**9, {"/a": 2, "/b": None}) for k in range(5)]
    text = told([*losses, Loss("the end", 9 * 10**9, None, {"/a": 1})], 0)
    assert text == (
        "a chunk at byte 0, a chunk at byte 1, a chunk at byte 2 and 3 more cannot be read "
        "(0.00 s to 5.00 s, after 9.00 s: 11 of /a, some of /b)"
    )
    text = told([Loss("rows 3 to 5")], 0, {"/a": 5, "/b": 7}, {"/a": 5, "/b": 4})
    assert text == "rows 3 to 5 cannot be read (at unknown times: 3 of /b)"
    assert told([Loss("row 1", None, 10**9)], 0).endswith("(before 1.00 s: unknown topics)")
