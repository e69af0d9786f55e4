"""Unpacked chunks of MCAP files. The newest are kept, and the memory of the others is used again.

Cameras that are read side by side ask for the same chunk one after the other. Memory that is new for each chunk takes
longer to get, page by page, than a chunk takes to unpack.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import lz4.frame

from dit_policy_ros.data.mcap_scan import (
    CHANNEL,
    CHUNK_HEAD,
    CUT,
    LOOSE,
    MESSAGE,
    MESSAGE_HEAD,
    PRIVATE,
    RECORD,
    SCHEMA,
    Piece,
    ZstdError,
    text_at,
    zstd,
)
from dit_policy_ros.errors import BagError

_PIECE_BYTES = 1 << 15
"""Of packed bytes at a time; what comes out of them fits into memory that the process has already."""
_UNPACKERS = {"zstd": zstd.ZstdDecompressor, "lz4": lz4.frame.LZ4FrameDecompressor}
"""Compression to what undoes it; others are none."""
_HEAD_BYTES = CHUNK_HEAD.size + 64
"""Enough for the head of a chunk and the name of its compression."""

Found = tuple[int, int, int, bytes]
"""Log time [ns], channel, place in the chunk, CDR."""
# What damaged bytes raise where they are unpacked and read.
_DAMAGE = (ZstdError, RuntimeError, ValueError, LookupError, OverflowError, MemoryError, struct.error)


class DamagedChunkError(BagError):
    """A chunk is not what its head says."""


@dataclass
class Chunk:
    """Records of one chunk."""

    records: bytearray = field(default_factory=bytearray)
    """May be longer than the chunk."""
    spots: dict[int, array] = field(default_factory=dict)
    """Channel to log time, begin and end of each of its messages, one after the other."""
    descriptions: list[tuple[int, bytes]] = field(default_factory=list)
    """Kind and body of the records that describe schemas and channels, in their order."""
    first_ns: int = 0
    last_ns: int = 0
    """Log times of its messages; both 0 where there is none."""

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return len(self.records) + sum(spots.itemsize * len(spots) for spots in self.spots.values())

    def messages(self, channels: Iterable[int]) -> list[Found]:
        """Returns the messages of some channels; the bytes are copies."""
        found: list[Found] = []
        with memoryview(self.records) as view:
            for channel in channels:
                spots = iter(self.spots.get(channel, ()))
                found += [(t, channel, a, bytes(view[a:b])) for t, a, b in zip(spots, spots, spots, strict=True)]
        return found


class ChunkCache:
    """Chunks of any number of files; takes as much as its limit, or as a single chunk where that is larger."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._chunks: OrderedDict[tuple[int, int], Chunk] = OrderedDict()
        self._packed = bytearray()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._chunks)

    @property
    def size_bytes(self) -> int:
        """What the chunks take in memory."""
        return sum(chunk.size_bytes for chunk in self._chunks.values())

    @contextmanager
    def chunk(self, path: Path, file: BinaryIO, owner: int, piece: Piece) -> Iterator[Chunk]:
        """Lends one chunk; other threads wait meanwhile.

        Args:
            path: of the file, for errors.
            file: open.
            owner: number of the file, which no other has.
            piece: where the chunk lies.

        Raises:
            DamagedChunkError: it cannot be read.
        """
        with self._lock:
            yield self._get(path, file, owner, piece)

    def _get(self, path: Path, file: BinaryIO, owner: int, piece: Piece) -> Chunk:
        chunk = self._chunks.get((owner, piece.place))
        if chunk is None:
            chunk = self._chunks[owner, piece.place] = self._load(path, file, piece)
            self._shrink()
        self._chunks.move_to_end((owner, piece.place))
        return chunk

    def clear(self) -> None:
        """Forgets every chunk."""
        with self._lock:
            self._chunks.clear()

    def _shrink(self) -> None:
        """Drops the oldest until the limit holds, the newest never."""
        while len(self._chunks) > 1 and self.size_bytes > self.limit_bytes:
            self._chunks.popitem(last=False)

    def _load(self, path: Path, file: BinaryIO, piece: Piece) -> Chunk:
        chunk = Chunk(self._memory())
        damaged = DamagedChunkError(f"{path}: a chunk at byte {piece.place} is damaged. Copy or record it again.")
        start = piece.place if piece.kind == LOOSE else piece.place + RECORD.size
        body_bytes = piece.place + piece.length - start
        if not 0 <= body_bytes <= os.fstat(file.fileno()).st_size - start:
            raise damaged
        # Lost where something is raised, because the traceback holds on to it.
        packed, self._packed = self._packed, bytearray()
        packed.extend(bytes(max(0, body_bytes - len(packed))))
        body = memoryview(packed)[:body_bytes]
        file.seek(start)
        file.readinto(body)
        try:
            is_sound = _fill(chunk, body, piece.kind)
        except _DAMAGE as problem:
            raise damaged from problem
        if not is_sound:
            raise damaged
        times = [spots[::3] for spots in chunk.spots.values()]
        chunk.first_ns, chunk.last_ns = min(map(min, times), default=0), max(map(max, times), default=0)
        self._packed = packed
        return chunk

    def _memory(self) -> bytearray:
        """Returns that of the oldest chunk where there is no room for one more of its size; none that is too large."""
        if not self._chunks:
            return bytearray()
        oldest = next(iter(self._chunks.values()))
        if self.size_bytes + oldest.size_bytes <= self.limit_bytes:
            return bytearray()
        records = self._chunks.popitem(last=False)[1].records
        return records if len(records) <= self.limit_bytes else bytearray()


def _fill(chunk: Chunk, body: memoryview, kind: int) -> bool:
    """Unpacks what a piece holds; returns whether it is what its head says."""
    if kind == LOOSE:
        chunk.records[: len(body)] = body
        return _find_messages(chunk, len(body)) == len(body)
    _, _, size, checksum = CHUNK_HEAD.unpack_from(body)
    compression, offset = text_at(bytes(body[:_HEAD_BYTES]), CHUNK_HEAD.size)
    if kind == CUT:
        _find_messages(chunk, _unpack_some(body[offset + 8 :], compression, chunk.records))
        return True
    found = _unpack(body[offset + 8 :], compression, chunk.records, size)
    if found != size or (checksum and zlib.crc32(memoryview(chunk.records)[:size]) != checksum):
        return False
    return _find_messages(chunk, size) == size


def _unpack_some(packed: memoryview, compression: str, records: bytearray) -> int:
    """Writes as many records as there are to the beginning of a buffer; returns their bytes."""
    unpacker = _UNPACKERS[compression]() if compression in _UNPACKERS else None
    out = unpacker.decompress(packed) if unpacker else packed
    records[: len(out)] = out
    return len(out)


def _unpack(packed: memoryview, compression: str, records: bytearray, size: int) -> int:
    """Writes records to the beginning of a buffer; returns their bytes, or more than ``size`` and stops."""
    if compression not in _UNPACKERS:
        records[: len(packed)] = packed
        return len(packed)
    found, unpacker = 0, _UNPACKERS[compression]()
    for at in range(0, len(packed), _PIECE_BYTES):
        piece: bytes | memoryview = packed[at : at + _PIECE_BYTES]
        while len(piece):
            if unpacker.eof:
                unpacker = _UNPACKERS[compression]()
            out = unpacker.decompress(piece)
            records[found : found + len(out)] = out
            found += len(out)
            if found > size:
                return found
            piece = (unpacker.unused_data or b"") if unpacker.eof else b""
    return found if unpacker.eof else -1


def _find_messages(chunk: Chunk, size: int) -> int:
    """Notes where the messages are; returns the byte after the last whole record."""
    records, at, head = chunk.records, 0, MESSAGE_HEAD.size
    while at + RECORD.size <= size:
        kind, length = RECORD.unpack_from(records, at)
        body, end = at + RECORD.size, at + RECORD.size + length
        if end > size:
            break
        if kind == MESSAGE:
            if length < head:
                break
            channel, _, log_ns, _ = MESSAGE_HEAD.unpack_from(records, body)
            spots = chunk.spots.get(channel)
            if spots is None:
                spots = chunk.spots[channel] = array("Q")
            spots.extend((log_ns, body + head, end))
        elif kind in (SCHEMA, CHANNEL):
            chunk.descriptions.append((kind, bytes(records[body:end])))
        elif kind < PRIVATE:
            break
        at = end
    return at
