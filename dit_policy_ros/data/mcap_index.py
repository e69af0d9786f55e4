"""Reads a whole MCAP file through its index of chunks: forty bytes a chunk, and a few chunks at a time.

Format: https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO

from dit_policy_ros.data.chunk_cache import ChunkCache
from dit_policy_ros.data.mcap_scan import MAGIC, RECORD, Message, text_at

_SCHEMA, _CHANNEL, _CHUNK_INDEX, _STATISTICS = 0x03, 0x04, 0x08, 0x0B
_FOOTER = struct.Struct("<BQQQI")
_CHUNK_ENTRY = struct.Struct("<QQQQ")  # first and last log time, place, length
_STATISTICS_HEAD = struct.Struct("<QHIIIIQQI")  # ..., chunks, ..., first and last log time, bytes of the counts
_CHANNEL_COUNT = struct.Struct("<HQ")
_MAP_ENTRY_BYTES = 10  # of the offsets of the message indexes: channel, place

_EVERY = (1 << 64) - 1
_CHUNKS = ChunkCache(8 << 20)
"""Of all files that this process reads."""
_numbers = count()

_Entry = tuple[int, int, str, bytes]
"""Log time [ns], place in the file, topic, CDR."""


class McapIndex:
    """Messages of one file."""

    def __init__(self, path: Path, chunks: ChunkCache = _CHUNKS) -> None:
        """Reads the summary at the end of a file; ``is_complete`` tells whether it is of use.

        Raises:
            struct.error, ValueError, IndexError: it is damaged.
        """
        self.path = path
        self.topics: dict[str, str] = {}
        """Topic to message type."""
        self.counts: Counter[str] = Counter()
        self.start_ns, self.end_ns = 0, 0
        """Of the first and after the last message; both 0 where there is none."""
        self.is_complete = False
        """Whether it tells of every chunk, and of the number of messages."""
        self._chunks, self._number = chunks, next(_numbers)
        self._channels: dict[int, str] = {}
        self._first_ns, self._last_ns, self._places = array("q"), array("q"), array("Q")
        self._lengths, self._members = array("Q"), array("Q")
        """Which channels a chunk has: bit k for the channels of number k modulo 64."""
        with path.open("rb") as file:
            self._read_summary(file)

    def messages(self, topics: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Message]:
        """Yields (topic, log time [ns], CDR) of what was recorded in [start, stop), in that order.

        Raises:
            BagError: a chunk is damaged.
        """
        wanted = {key: topic for key, topic in self._channels.items() if topic in topics}
        members = 0
        for key in wanted:
            members |= 1 << key % 64
        waiting: list[_Entry] = []
        with self.path.open("rb") as file:
            for k in sorted(range(len(self._places)), key=self._first_ns.__getitem__):
                if not self._members[k] & members or self._last_ns[k] < start_ns or self._first_ns[k] >= stop_ns:
                    continue
                # What is earlier than this chunk cannot be in one that begins later.
                ready = bisect_left(waiting, (self._first_ns[k],))
                yield from _messages(waiting[:ready])
                found = self._chunk(file, k, wanted)
                waiting = sorted(waiting[ready:] + [entry for entry in found if start_ns <= entry[0] < stop_ns])
            yield from _messages(waiting)

    def _chunk(self, file: BinaryIO, k: int, wanted: dict[int, str]) -> list[_Entry]:
        place = self._places[k]
        found = self._chunks.messages(self.path, file, self._number, (place, self._lengths[k]), wanted)
        # Sorted by place within an instant.
        return [(log_ns, place << 32 | at, wanted[channel], cdr) for log_ns, channel, at, cdr in found]

    def _read_summary(self, file: BinaryIO) -> None:
        end = file.seek(-(_FOOTER.size + len(MAGIC)), 2)
        _, _, begin, _, _ = _FOOTER.unpack(file.read(_FOOTER.size))
        if not len(MAGIC) <= begin <= end:
            return
        file.seek(begin)
        schemas: dict[int, str] = {}
        chunks = -1
        while file.tell() < end:
            kind, length = RECORD.unpack(file.read(RECORD.size))
            body = file.read(length)
            if kind == _SCHEMA:
                schemas[int.from_bytes(body[:2], "little")] = text_at(body, 2)[0]
            elif kind == _CHANNEL:
                key, schema = struct.unpack_from("<HH", body)
                self._channels[key] = text_at(body, 4)[0]
                self.topics[self._channels[key]] = schemas.get(schema, "")
            elif kind == _CHUNK_INDEX:
                self._note_chunk(body)
            elif kind == _STATISTICS:
                chunks = self._note_statistics(body)
        self.is_complete = chunks == len(self._places) and (chunks > 0 or not self.counts.total())

    def _note_chunk(self, body: bytes) -> None:
        first_ns, last_ns, place, length = _CHUNK_ENTRY.unpack_from(body)
        (size,) = struct.unpack_from("<I", body, _CHUNK_ENTRY.size)
        at = _CHUNK_ENTRY.size + 4
        members = 0
        for k in range(at, at + size, _MAP_ENTRY_BYTES):
            members |= 1 << int.from_bytes(body[k : k + 2], "little") % 64
        self._first_ns.append(first_ns)
        self._last_ns.append(last_ns)
        self._places.append(place)
        self._lengths.append(length)
        # A writer may leave out which channels a chunk has.
        self._members.append(members or _EVERY)

    def _note_statistics(self, body: bytes) -> int:
        total, _, _, _, _, chunks, first_ns, last_ns, size = _STATISTICS_HEAD.unpack_from(body)
        for at in range(_STATISTICS_HEAD.size, _STATISTICS_HEAD.size + size, _CHANNEL_COUNT.size):
            key, count = _CHANNEL_COUNT.unpack_from(body, at)
            self.counts[self._channels[key]] += count
        if total:
            self.start_ns, self.end_ns = first_ns, last_ns + 1
        return chunks if total == self.counts.total() else -1


def _messages(entries: list[_Entry]) -> Iterator[Message]:
    for log_ns, _, topic, cdr in entries:
        yield topic, log_ns, cdr
