"""Walks over an MCAP file record by record without its index, so also one that is cut short or damaged.

Format: https://mcap.dev/spec. Whole files are read through their index; this is for the others, and for the copy of
the metadata that a file carries inside.
"""

from __future__ import annotations

import io
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZstdError = zstd.ZstdError

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK = 0x03, 0x04, 0x05, 0x06
_HEADER, _METADATA, _DATA_END, _LAST_KIND = 0x01, 0x0C, 0x0F, 0x0F
PRIVATE = 0x80
"""Kinds from here on are of whoever writes them."""
RECORD = struct.Struct("<BQ")
MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
CHUNK_HEAD = struct.Struct("<QQQI")  # start, end, uncompressed size, checksum
_RUN_BYTES = 1 << 20
_COMPRESSIONS = ("", "lz4", "zstd")
_CHUNK_BYTES = CHUNK_HEAD.size + 4 + 4 + 8
"""Enough for the head of a chunk with each of them."""
_CHUNK_SIGN = rb"\x06.{6}\x00{2}.{28}(?:\x00{4}|\x03\x00{3}lz4|\x04\x00{3}zstd)"
_SCHEMA_SIGN = rb"\x03.{3}\x00{5}.{4}\x00{2}[a-z]"
_CHANNEL_SIGN = rb"\x04.{2}\x00{6}.{6}\x00{2}/"
_MESSAGE_SIGN = rb"\x05.{5}\x00{3}.{22}"
_END_SIGN = rb"\x0f\x04\x00{7}"
_OUTER = re.compile(b"(?=%b|%b)" % (_CHUNK_SIGN, _END_SIGN), re.DOTALL)
_ANY = re.compile(
    b"(?=%b)" % b"|".join((_CHUNK_SIGN, _END_SIGN, _SCHEMA_SIGN, _CHANNEL_SIGN, _MESSAGE_SIGN)), re.DOTALL
)
"""How records begin. The others are too common in images."""
_SIGN_BYTES = 64
"""More than a sign takes."""

Message = tuple[str, int, bytes]
"""Topic, log time [ns], CDR."""
WHOLE, LOOSE, CUT, LOST, END = range(5)


@dataclass(frozen=True)
class Piece:
    """Bytes of a file."""

    place: int
    length: int
    kind: int
    """WHOLE: the record of a chunk. LOOSE: records that are in no chunk. CUT: a chunk that the file breaks off in.
    LOST: not understood. END: of the data; missing where the file breaks off before it."""


def is_whole(path: Path) -> bool:
    """Returns whether a file begins and ends as an MCAP file must."""
    with path.open("rb") as file:
        begin = file.read(len(MAGIC))
        size = file.seek(0, io.SEEK_END)
        if size < 2 * len(MAGIC) + RECORD.size:
            return False
        file.seek(-len(MAGIC), io.SEEK_END)
        return begin == MAGIC and file.read() == MAGIC


def scan(path: Path) -> Iterator[Piece]:
    """Yields what holds messages, and what is not understood, from the beginning to the end.

    After the end of the data LOOSE pieces repeat schemas and channels, and the rest is of no use.
    """
    size = path.stat().st_size
    if size <= len(MAGIC):
        return
    with path.open("rb") as file:
        at = run = len(MAGIC)
        while at < size:
            kind, length = _record(file, at, size)
            end = at + RECORD.size + length
            is_loose = kind in (SCHEMA, CHANNEL, MESSAGE) and end <= size
            if at > run and not (is_loose and end - run <= _RUN_BYTES):
                yield Piece(run, at - run, LOOSE)
                run = at
            if is_loose:
                at = end
                continue
            if kind == _DATA_END:
                yield Piece(at, end - at, END)
            elif not kind or end > size:
                # Records inside a chunk that is cut are not taken for others.
                end = _resume(file, at + 1, size, _OUTER if kind else _ANY)
                yield Piece(at, end - at, CUT if kind == CHUNK and end == size else LOST)
            elif kind == CHUNK:
                yield Piece(at, end - at, WHOLE)
            at = run = end
        if at > run:
            yield Piece(run, at - run, LOOSE)


def _record(file: BinaryIO, at: int, size: int) -> tuple[int, int]:
    """Returns kind and length of the record at a place; kind 0 where there can be none. Only a chunk may be cut."""
    file.seek(at)
    head = file.read(RECORD.size)
    if len(head) < RECORD.size:
        return 0, 0
    kind, length = RECORD.unpack(head)
    if not _HEADER <= kind <= _LAST_KIND and kind < PRIVATE:
        return 0, 0
    if kind == CHUNK:
        return (kind, length) if _is_chunk(file.read(_CHUNK_BYTES), length) else (0, 0)
    if kind == MESSAGE and length < MESSAGE_HEAD.size:
        return 0, 0
    return (kind, length) if at + RECORD.size + length <= size else (0, 0)


def _is_chunk(head: bytes, length: int) -> bool:
    """Returns whether the lengths in the head of a chunk fit together."""
    try:
        compression, at = text_at(head, CHUNK_HEAD.size)
        (packed,) = struct.unpack_from("<Q", head, at)
    except struct.error:
        return False
    return compression in _COMPRESSIONS and length == at + 8 + packed


def _resume(file: BinaryIO, at: int, size: int, signs: re.Pattern[bytes]) -> int:
    """Returns the next place where a chunk or the end of the data begins, or a record before another one."""
    while at < size:
        file.seek(at)
        window = file.read(_RUN_BYTES)
        for sign in signs.finditer(window):
            place = at + sign.start()
            kind, length = _record(file, place, size)
            end = place + RECORD.size + length
            if kind in (_DATA_END, CHUNK):
                return place
            if kind in (SCHEMA, CHANNEL, MESSAGE) and 0 < _record(file, end, size)[0] < PRIVATE:
                return place
        at += max(1, len(window) - _SIGN_BYTES)
    return size


def embedded_metadata(path: Path) -> str:
    """Returns the ``metadata.yaml`` text that rosbag2 keeps inside a whole file, or an empty text."""
    size = path.stat().st_size
    with path.open("rb") as file:
        at = len(MAGIC)
        while at + RECORD.size <= size:
            file.seek(at)
            kind, length = RECORD.unpack(file.read(RECORD.size))
            at += RECORD.size + length
            if kind == _METADATA and at <= size:
                name, entries = _metadata(file.read(length))
                if name == "rosbag2":
                    return entries.get("serialized_metadata", "")
    return ""


def _metadata(body: bytes) -> tuple[str, dict[str, str]]:
    """Returns name and entries of a metadata record; those of a damaged one as far as they go."""
    entries: dict[str, str] = {}
    name, offset = "", 0
    try:
        name, offset = text_at(body, 0)
        (length,) = struct.unpack_from("<I", body, offset)
        position = offset + 4
        while position < offset + 4 + length:
            key, position = text_at(body, position)
            entries[key], position = text_at(body, position)
    except struct.error:
        return name, {}
    return name, entries


def text_at(body: bytes, offset: int) -> tuple[str, int]:
    """Returns a text that its length stands before, and the place after it.

    Raises:
        struct.error: the length is not there.
    """
    (length,) = struct.unpack_from("<I", body, offset)
    end = offset + 4 + length
    return body[offset + 4 : end].decode(errors="replace"), end
