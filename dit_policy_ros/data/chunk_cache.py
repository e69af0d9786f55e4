"""Unpacked chunks of MCAP files. The newest are kept, and the memory of the others is used again.

Cameras that are read side by side ask for the same chunk one after the other. Memory that is new for each chunk takes
longer to get, page by page, than a chunk takes to unpack.
"""

from __future__ import annotations

import os
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import lz4.frame

from dit_policy_ros.data.mcap_scan import CHUNK_HEAD, MESSAGE_HEAD, RECORD, text_at, zstd
from dit_policy_ros.errors import BagError

_MESSAGE = 0x05
_PIECE_BYTES = 1 << 15
"""Of packed bytes at a time; what comes out of them fits into memory that the process has already."""
_UNPACKERS = {"zstd": zstd.ZstdDecompressor, "lz4": lz4.frame.LZ4FrameDecompressor}
"""Compression to what undoes it; others are none."""
_HEAD_BYTES = CHUNK_HEAD.size + 64
"""Enough for the head of a chunk and the name of its compression."""

Found = tuple[int, int, int, bytes]
"""Log time [ns], channel, place in the chunk, CDR."""
Place = tuple[int, int]
"""First byte of a chunk's record in the file, and bytes of the record."""


@dataclass
class Chunk:
    """Records of one chunk."""

    records: bytearray = field(default_factory=bytearray)
    """May be longer than the chunk."""
    spots: dict[int, array] = field(default_factory=dict)
    """Channel to log time, begin and end of each of its messages, one after the other."""

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

    def messages(self, path: Path, file: BinaryIO, owner: int, entry: Place, channels: Iterable[int]) -> list[Found]:
        """Returns the messages of some channels in one chunk.

        Args:
            path: of the file, for errors.
            file: open.
            owner: number of the file, which no other has.
            entry: where the chunk lies.
            channels: that are asked for.

        Raises:
            BagError, ValueError, struct.error, zstd.ZstdError, RuntimeError: the chunk is damaged.
        """
        with self._lock:
            chunk = self._chunks.get((owner, entry[0]))
            if chunk is None:
                chunk = self._chunks[owner, entry[0]] = self._load(path, file, *entry)
                self._shrink()
            self._chunks.move_to_end((owner, entry[0]))
            return chunk.messages(channels)

    def clear(self) -> None:
        """Forgets every chunk."""
        with self._lock:
            self._chunks.clear()

    def _shrink(self) -> None:
        """Drops the oldest until the limit holds, the newest never."""
        while len(self._chunks) > 1 and self.size_bytes > self.limit_bytes:
            self._chunks.popitem(last=False)

    def _load(self, path: Path, file: BinaryIO, place: int, length: int) -> Chunk:
        chunk = Chunk(self._memory())
        damaged = BagError(f"{path}: a chunk at byte {place} is damaged. Copy or record it again.")
        body_bytes = length - RECORD.size
        if not 0 <= body_bytes <= os.fstat(file.fileno()).st_size - place:
            raise damaged
        # Lost where something is raised, because the traceback holds on to it.
        packed, self._packed = self._packed, bytearray()
        packed.extend(bytes(max(0, body_bytes - len(packed))))
        body = memoryview(packed)[:body_bytes]
        file.seek(place + RECORD.size)
        file.readinto(body)
        _, _, size, checksum = CHUNK_HEAD.unpack_from(body)
        compression, offset = text_at(bytes(body[:_HEAD_BYTES]), CHUNK_HEAD.size)
        found = _unpack(body[offset + 8 :], compression, chunk.records, size)
        if found != size or (checksum and zlib.crc32(memoryview(chunk.records)[:size]) != checksum):
            raise damaged
        if _find_messages(chunk, size) != size:
            raise damaged
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
    """Notes where the messages are; returns the byte after the last record."""
    records, at, head = chunk.records, 0, MESSAGE_HEAD.size
    while at < size:
        kind, length = RECORD.unpack_from(records, at)
        at += RECORD.size
        if kind == _MESSAGE:
            channel, _, log_ns, _ = MESSAGE_HEAD.unpack_from(records, at)
            spots = chunk.spots.get(channel)
            if spots is None:
                spots = chunk.spots[channel] = array("Q")
            spots.extend((log_ns, at + head, at + length))
        at += length
    return at
