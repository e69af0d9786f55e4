"""Reads an MCAP file through its index of chunks: forty bytes a chunk, and a few chunks at a time.

Where a file has no index, or a damaged one, its chunks are looked up one by one. Format: https://mcap.dev/spec.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import BinaryIO

from dit_policy_ros.data.chunk_cache import Chunk, ChunkCache, DamagedChunkError
from dit_policy_ros.data.losses import Loss, LossError
from dit_policy_ros.data.mcap_scan import (
    CHANNEL,
    CHUNK_HEAD,
    CUT,
    END,
    LOOSE,
    LOST,
    MAGIC,
    RECORD,
    SCHEMA,
    WHOLE,
    Message,
    Piece,
    scan,
    text_at,
)

_FOOTER_KIND, _MESSAGE_INDEX, _CHUNK_INDEX, _STATISTICS = 0x02, 0x07, 0x08, 0x0B
_FOOTER = struct.Struct("<BQQQI")  # kind, length, begin of the summary, begin of its offsets, checksum
_CHUNK_ENTRY = struct.Struct("<QQQQ")  # first and last log time, place, length
_STATISTICS_HEAD = struct.Struct("<QHIIIIQQI")  # ..., chunks, ..., first and last log time, bytes of the counts
_CHANNEL_COUNT = struct.Struct("<HQ")
_MAP_ENTRY_BYTES = 10  # of the offsets of the message indexes: channel, place
_INDEX_ENTRY = struct.Struct("<QQ")  # log time, place

_EVERY = (1 << 64) - 1
_LATEST_NS = 1 << 62
_DAMAGE = (struct.error, ValueError, LookupError, OverflowError, MemoryError)
_CHUNKS = ChunkCache(8 << 20)
"""Of all files that this process reads."""
_numbers = count()

_Entry = tuple[int, int, str, bytes]
"""Log time [ns], place in the file, topic, CDR."""


class McapIndex:
    """Messages of one file."""

    def __init__(self, path: Path, chunks: ChunkCache = _CHUNKS, recover: bool = False) -> None:
        """Reads the summary at the end of a file; ``is_complete`` tells whether it is of use.

        Args:
            path: of the file.
            chunks: where unpacked chunks are kept.
            recover: leave out damaged chunks and note them in ``losses``, instead of an error.
        """
        self.path = path
        self.is_complete = False
        """Whether the summary tells of every chunk, and of the number of messages."""
        self.is_summary_damaged = False
        self.is_cut = True
        """Whether the file breaks off."""
        self.losses: dict[int, Loss] = {}
        """Place to what cannot be read there, as far as it was met."""
        self.lost_bytes = 0
        """Of the chunk or record in which the file breaks off."""
        self.promised: int | None = None
        """Messages that the summary tells of."""
        self._recover = recover
        self._chunks, self._number = chunks, next(_numbers)
        self._clear()
        with path.open("rb") as file:
            try:
                self.is_complete = self._read_summary(file) and self._is_confirmed(file)
            except _DAMAGE:
                self.is_summary_damaged = True
        if self.is_complete:
            self.promised = self.counts.total()

    def _clear(self) -> None:
        self.topics: dict[str, str] = {}
        """Topic to message type."""
        self.counts: Counter[str] = Counter()
        self.start_ns, self.end_ns = 0, 0
        """Of the first and after the last message; both 0 where there is none."""
        self._channels: dict[int, str] = {}
        self._first_ns, self._last_ns, self._places = array("q"), array("q"), array("Q")
        self._lengths, self._members, self._kinds = array("Q"), array("Q"), array("B")
        """Members: which channels a chunk has, bit k for the channels of number k modulo 64."""

    def messages(self, topics: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Message]:
        """Yields (topic, log time [ns], CDR) of what was recorded in [start, stop), in that order.

        Raises:
            BagError: a chunk is damaged, and ``recover`` was not asked for.
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

    def check(self) -> None:
        """Reads every chunk once, so that all damage is known and ``counts`` holds what is whole."""
        counts: Counter[str] = Counter()
        first_ns, last_ns = _LATEST_NS, -1
        with self.path.open("rb") as file:
            for k in range(len(self._places)):
                with self._sound(file, k) as chunk:
                    if chunk is None or not chunk.spots:
                        continue
                    self._count(chunk, counts)
                    first_ns, last_ns = min(first_ns, chunk.first_ns), max(last_ns, chunk.last_ns)
        self.counts = counts
        self.start_ns, self.end_ns = (first_ns, last_ns + 1) if counts else (0, 0)

    def rebuild(self) -> None:
        """Looks up every chunk without the summary; damage is noted and left out."""
        self._clear()
        schemas: dict[int, str] = {}
        self.lost_bytes = 0
        pieces = list(scan(self.path))
        end = next((k for k, piece in enumerate(pieces) if piece.kind == END), len(pieces))
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            # What the summary says of channels, where the chunk that says it too is damaged.
            for piece in pieces[end + 1 :]:
                if piece.kind == LOOSE:
                    self._look_up(file, piece, schemas)
            self.losses.clear()
            for piece in pieces[:end]:
                if piece.kind == LOST and piece.place + piece.length == size:
                    self.lost_bytes += piece.length
                elif piece.kind == LOST:
                    self.losses[piece.place] = Loss(f"{piece.length} bytes at byte {piece.place}")
                else:
                    self.lost_bytes += piece.length if piece.kind == CUT else 0
                    self._look_up(file, piece, schemas)
        self._date_losses()
        self.start_ns = min(self._first_ns, default=0)
        self.end_ns = max(self._last_ns, default=-1) + 1

    def _date_losses(self) -> None:
        """Puts losses whose time is not known between what was read before and after them."""
        for place, loss in self.losses.items():
            if loss.first_ns is None and loss.last_ns is None:
                k = bisect_left(self._places, place)
                before = self._last_ns[k - 1] if k else None
                after = self._first_ns[k] if k < len(self._places) else None
                self.losses[place] = replace(loss, first_ns=before, last_ns=after)

    def _chunk(self, file: BinaryIO, k: int, wanted: dict[int, str]) -> list[_Entry]:
        place = self._places[k]
        with self._sound(file, k) as chunk:
            found = chunk.messages(wanted) if chunk else ()
        # Sorted by place within an instant.
        return [(log_ns, place << 32 | at, wanted[channel], cdr) for log_ns, channel, at, cdr in found]

    @contextmanager
    def _sound(self, file: BinaryIO, k: int) -> Iterator[Chunk | None]:
        """Lends a chunk, or None for a damaged one."""
        piece = Piece(self._places[k], self._lengths[k], self._kinds[k])
        if piece.place in self.losses:
            yield None
            return
        with ExitStack() as lent:
            try:
                chunk = lent.enter_context(self._chunks.chunk(self.path, file, self._number, piece))
                self._refuse_foreign(chunk, k)
            except DamagedChunkError as problem:
                loss = self._lose(file, piece, (self._first_ns[k], self._last_ns[k]), self._members[k])
                if not self._recover:
                    raise LossError(loss, self.start_ns) from problem
                self.losses[piece.place] = loss
                chunk = None
            yield chunk

    def _refuse_foreign(self, chunk: Chunk, k: int) -> None:
        """Raises DamagedChunkError where the messages are not those that the summary tells of."""
        is_meant = self._first_ns[k] <= chunk.first_ns and chunk.last_ns <= self._last_ns[k]
        if chunk.spots and self.is_complete and not (is_meant and chunk.spots.keys() <= self._channels.keys()):
            raise DamagedChunkError(f"{self.path}: a chunk at byte {self._places[k]} is damaged.")

    def _count(self, chunk: Chunk, counts: Counter[str]) -> None:
        for channel in chunk.spots.keys() & self._channels.keys():
            counts[self._channels[channel]] += len(chunk.spots[channel]) // 3

    def _lose(self, file: BinaryIO, piece: Piece, span_ns: tuple[int, int] | None, members: int) -> Loss:
        """Returns what a damaged chunk held, by the index of its messages that comes after it, or by the summary."""
        place = f"a chunk at byte {piece.place}"
        times, counts = _read_message_index(file, piece.place + piece.length)
        if counts and counts.keys() <= self._channels.keys():
            return Loss(place, *times, {self._channels[channel]: n for channel, n in counts.items()})
        known = [topic for key, topic in self._channels.items() if members >> key % 64 & 1]
        span_ns = span_ns or _read_span(file, piece)
        return Loss(place, *(span_ns or (None, None)), dict.fromkeys(known if members != _EVERY else ()))

    def _look_up(self, file: BinaryIO, piece: Piece, schemas: dict[int, str]) -> None:
        """Notes a chunk, or records that are in none, and what they say about channels."""
        try:
            with self._chunks.chunk(self.path, file, self._number, piece) as chunk:
                for kind, body in chunk.descriptions:
                    self._describe(kind, body, schemas)
                first_ns, last_ns, counts = chunk.first_ns, chunk.last_ns, Counter[str]()
                self._count(chunk, counts)
                total = sum(len(spots) // 3 for spots in chunk.spots.values())
                members = sum({1 << channel % 64 for channel in chunk.spots})
            if last_ns >= _LATEST_NS:
                raise DamagedChunkError(f"{self.path}: a chunk at byte {piece.place} holds no times.")
        except (DamagedChunkError, *_DAMAGE):
            self.losses[piece.place] = self._lose(file, piece, None, _EVERY)
            return
        if unknown := total - counts.total():
            what = f"{unknown} messages without a topic at byte {piece.place}"
            # Not at its own place: what has a topic is read.
            self.losses[-piece.place] = Loss(what, first_ns, last_ns)
        self.counts += counts
        if counts:
            self._note(first_ns, last_ns, piece, members)

    def _note(self, first_ns: int, last_ns: int, piece: Piece, members: int) -> None:
        self._first_ns.append(first_ns)
        self._last_ns.append(last_ns)
        self._places.append(piece.place)
        self._lengths.append(piece.length)
        self._kinds.append(piece.kind)
        self._members.append(members)

    def _describe(self, kind: int, body: bytes, schemas: dict[int, str]) -> None:
        """Notes a schema or a channel."""
        if kind == SCHEMA:
            schemas[int.from_bytes(body[:2], "little")] = text_at(body, 2)[0]
        elif kind == CHANNEL:
            key, schema = struct.unpack_from("<HH", body)
            # A type that got lost leaves the channel unknown.
            if schema in schemas or not schema:
                self._channels[key] = text_at(body, 4)[0]
                self.topics[self._channels[key]] = schemas.get(schema, "")

    def _read_summary(self, file: BinaryIO) -> bool:
        """Returns whether there is a summary that is of use.

        Raises:
            ValueError, struct.error, LookupError, OverflowError: it is damaged.
        """
        end = file.seek(0, 2) - _FOOTER.size - len(MAGIC)
        if end < 0:
            raise ValueError("no footer")
        file.seek(end)
        footer = file.read(_FOOTER.size)
        kind, length, begin, _, checksum = _FOOTER.unpack(footer)
        is_footer, is_end = (kind, length) == (_FOOTER_KIND, _FOOTER.size - RECORD.size), file.read() == MAGIC
        self.is_cut = not (is_footer or is_end)
        if not (is_footer and is_end):
            raise ValueError("no footer")
        if begin == 0:
            return False
        if not len(MAGIC) <= begin <= end:
            raise ValueError("no summary")
        file.seek(begin)
        if checksum and zlib.crc32(footer[: RECORD.size + 16], zlib.crc32(file.read(end - begin))) != checksum:
            raise ValueError("checksum")
        file.seek(begin)
        schemas: dict[int, str] = {}
        chunks = 0
        while file.tell() < end:
            kind, length = RECORD.unpack(file.read(RECORD.size))
            if file.tell() + length > end:
                raise ValueError("record")
            body = file.read(length)
            self._describe(kind, body, schemas)
            if kind == _CHUNK_INDEX:
                self._note_chunk(body, begin)
            elif kind == _STATISTICS:
                chunks = self._note_statistics(body)
        # A writer may leave out the index, or the statistics.
        if self._places and chunks and chunks != len(self._places):
            raise ValueError("chunks")
        return chunks == len(self._places) and (chunks > 0 or not self.counts.total())

    def _is_confirmed(self, file: BinaryIO) -> bool:
        """Returns True where the first chunk names its channels as the summary does, which often has no checksum.

        Raises:
            ValueError: it names others.
        """
        if not self._places:
            return True
        place = min(self._places)
        piece = Piece(place, self._lengths[self._places.index(place)], WHOLE)
        try:
            with self._chunks.chunk(self.path, file, self._number, piece) as chunk:
                bodies = [body for kind, body in chunk.descriptions if kind == CHANNEL]
        except DamagedChunkError:
            return True
        for body in bodies:
            topic = text_at(body, 4)[0]
            if self._channels.get(int.from_bytes(body[:2], "little"), topic) != topic:
                raise ValueError("channel")
        return True

    def _note_chunk(self, body: bytes, end: int) -> None:
        first_ns, last_ns, place, length = _CHUNK_ENTRY.unpack_from(body)
        (size,) = struct.unpack_from("<I", body, _CHUNK_ENTRY.size)
        if not len(MAGIC) <= place < place + length <= end or max(first_ns, last_ns) >= _LATEST_NS:
            raise ValueError("chunk")
        at = _CHUNK_ENTRY.size + 4
        members = 0
        for k in range(at, at + size, _MAP_ENTRY_BYTES):
            members |= 1 << int.from_bytes(body[k : k + 2], "little") % 64
        # A writer may leave out which channels a chunk has.
        self._note(first_ns, last_ns, Piece(place, length, WHOLE), members or _EVERY)

    def _note_statistics(self, body: bytes) -> int:
        total, _, _, _, _, chunks, first_ns, last_ns, size = _STATISTICS_HEAD.unpack_from(body)
        for at in range(_STATISTICS_HEAD.size, _STATISTICS_HEAD.size + size, _CHANNEL_COUNT.size):
            key, count = _CHANNEL_COUNT.unpack_from(body, at)
            self.counts[self._channels[key]] += count
        if total != self.counts.total() or (total and max(first_ns, last_ns) >= _LATEST_NS):
            raise ValueError("statistics")
        if total:
            self.start_ns, self.end_ns = first_ns, last_ns + 1
        return chunks


def _read_message_index(file: BinaryIO, place: int) -> tuple[tuple[int, int], dict[int, int]]:
    """Returns (first, last) log time and channel to messages of the chunk that ends at a place; empty if unknown."""
    file.seek(place)
    counts: dict[int, int] = {}
    times: list[int] = []
    while len(head := file.read(RECORD.size)) == RECORD.size:
        kind, length = RECORD.unpack(head)
        if kind != _MESSAGE_INDEX or length > 1 << 30:
            break
        body = file.read(length)
        if len(body) < 6:
            return (0, 0), {}
        channel, size = struct.unpack_from("<HI", body)
        if size != len(body) - 6 or size % _INDEX_ENTRY.size:
            return (0, 0), {}
        stamps = [log_ns for log_ns, _ in _INDEX_ENTRY.iter_unpack(body[6:])]
        counts[channel] = counts.get(channel, 0) + len(stamps)
        times += stamps
    if not times or max(times) >= _LATEST_NS:
        return (0, 0), {}
    return (min(times), max(times)), counts


def _read_span(file: BinaryIO, piece: Piece) -> tuple[int, int] | None:
    """Returns the times in the head of a chunk, or None where they cannot be."""
    if piece.kind == LOOSE:
        return None
    file.seek(piece.place + RECORD.size)
    first_ns, last_ns, _, _ = CHUNK_HEAD.unpack(file.read(CHUNK_HEAD.size))
    return (first_ns, last_ns) if 0 < first_ns <= last_ns < _LATEST_NS else None


def _messages(entries: list[_Entry]) -> Iterator[Message]:
    for log_ns, _, topic, cdr in entries:
        yield topic, log_ns, cdr
