"""Reads an MCAP file record by record without its index, so also one that ends too early.

Format: https://mcap.dev/spec. Whole files are read through their index; this is for the others, and for the copy of
the metadata that a file carries inside.
"""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZstdError = zstd.ZstdError

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _METADATA, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0C, 0x0F
RECORD = struct.Struct("<BQ")
MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
CHUNK_HEAD = struct.Struct("<QQQI")  # start, end, uncompressed size, checksum

Message = tuple[str, int, bytes]
"""Topic, log time [ns], CDR."""


def is_whole(path: Path) -> bool:
    """Returns whether a file begins and ends as an MCAP file must."""
    with path.open("rb") as file:
        begin = file.read(len(MAGIC))
        size = file.seek(0, io.SEEK_END)
        if size < 2 * len(MAGIC) + RECORD.size:
            return False
        file.seek(-len(MAGIC), io.SEEK_END)
        return begin == MAGIC and file.read() == MAGIC


class McapScan:
    """One pass over the whole records of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topics: dict[str, str] = {}
        """Topic to message type, of the channels met so far."""
        self.lost_bytes = 0
        """Bytes of records that were begun and not finished; known once ``messages`` is through."""
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, str] = {}

    def messages(self) -> Iterator[Message]:
        """Yields every whole message, in the order of log time within a chunk."""
        self.lost_bytes = 0
        with self.path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return
            for kind, body, missing in _records(file):
                self.lost_bytes += len(body) if missing else 0
                if kind == _CHUNK:
                    inner = _records(io.BytesIO(inflate(body)))
                    found = [message for entry in inner for message in self._read(*entry)]
                    yield from sorted(found, key=lambda message: message[1])
                elif kind == _DATA_END:
                    return
                else:
                    yield from self._read(kind, body, missing)

    def _read(self, kind: int, body: bytes, missing: int) -> Iterator[Message]:
        if missing:
            return
        if kind == _SCHEMA:
            (key,) = struct.unpack_from("<H", body)
            self._schemas[key] = text_at(body, 2)[0]
        elif kind == _CHANNEL:
            key, schema = struct.unpack_from("<HH", body)
            topic = text_at(body, 4)[0]
            self._channels[key] = topic
            self.topics[topic] = self._schemas.get(schema, "")
        elif kind == _MESSAGE:
            channel, _, log_ns, _ = MESSAGE_HEAD.unpack_from(body)
            if channel in self._channels:
                yield self._channels[channel], log_ns, body[MESSAGE_HEAD.size :]


def embedded_metadata(path: Path) -> str:
    """Returns the ``metadata.yaml`` text that rosbag2 keeps inside a whole file, or an empty text."""
    with path.open("rb") as file:
        file.seek(len(MAGIC))
        for kind, body, _ in _records(file, only=_METADATA):
            name, offset = text_at(body, 0)
            if kind == _METADATA and name == "rosbag2":
                (length,) = struct.unpack_from("<I", body, offset)
                entries, position = {}, offset + 4
                while position < offset + 4 + length:
                    key, position = text_at(body, position)
                    entries[key], position = text_at(body, position)
                return entries.get("serialized_metadata", "")
    return ""


def _records(stream: BinaryIO, only: int | None = None) -> Iterator[tuple[int, bytes, int]]:
    """Yields (kind, body, missing bytes) of all records, or of one kind; the last may lack bytes."""
    while len(head := stream.read(RECORD.size)) == RECORD.size:
        kind, length = RECORD.unpack(head)
        if only is not None and kind != only:
            stream.seek(length, io.SEEK_CUR)
            continue
        body = stream.read(length) if length < 2**62 else stream.read()
        yield kind, body, length - len(body)


def inflate(body: bytes) -> bytes:
    """Returns as much of a chunk's records as its bytes hold."""
    if len(body) < CHUNK_HEAD.size + 4:
        return b""
    compression, offset = text_at(body, CHUNK_HEAD.size)
    packed = body[offset + 8 :]
    if compression == "zstd":
        return zstd.ZstdDecompressor().decompress(packed)
    if compression == "lz4":
        return lz4.frame.LZ4FrameDecompressor().decompress(packed)
    return packed


def text_at(body: bytes, offset: int) -> tuple[str, int]:
    """Returns a text that its length stands before, and the place after it."""
    (length,) = struct.unpack_from("<I", body, offset)
    end = offset + 4 + length
    return body[offset + 4 : end].decode(errors="replace"), end
