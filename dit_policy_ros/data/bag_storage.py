"""One storage file of a bag: MCAP or sqlite3, whole or cut short, its messages compressed or not."""

from __future__ import annotations

import struct
import sys
import weakref
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw
from rosbags.rosbag2 import Reader, ReaderError

from dit_policy_ros.data.mcap_index import McapIndex
from dit_policy_ros.data.mcap_scan import MAGIC, McapScan, Message, ZstdError, is_whole
from dit_policy_ros.data.sqlite_scan import SQLITE_MAGIC, SqliteScan, is_whole_sqlite
from dit_policy_ros.errors import BagError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SUFFIXES = (".mcap", ".db3")
PACKED_SUFFIXES = (".zstd", ".zst")
"""Of files that are compressed as a whole."""
FOREVER_NS = 1 << 62
_BEGINNINGS = {".mcap": MAGIC, ".db3": SQLITE_MAGIC}
_BLOCK_BYTES = 1 << 20
# What rosbags, its storages and its decompressors raise on damaged bytes.
_DAMAGE = (ReaderError, OSError, ValueError, TypeError, LookupError, RuntimeError, struct.error, ZstdError, apsw.Error)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what damaged bytes and missing rights raise in the libraries into a BagError."""
    try:
        yield
    except PermissionError as problem:
        raise BagError(f"{problem.filename or path} may not be read by this user; ask for the right to.") from problem
    except _DAMAGE as problem:
        text = " ".join(str(problem).split()).rstrip(".")
        raise BagError(f"{path} cannot be read: {text}. Copy or record it again.") from problem


def is_storage(path: Path) -> bool:
    """Returns whether a file's name is that of a storage file, packed or not."""
    name = path.with_suffix("") if path.suffix in PACKED_SUFFIXES else path
    return name.suffix in SUFFIXES


def unpack(path: Path, folder: Path) -> Path:
    """Unpacks a file that is compressed as a whole into a folder, as far as it goes, and returns the new file."""
    unpacked = folder / path.with_suffix("").name
    # What was cut short or damaged: what came out so far is judged like any file that was cut short.
    with path.open("rb") as packed, unpacked.open("wb") as out, suppress(ZstdError):
        inflate = zstd.ZstdDecompressor()
        while block := packed.read(_BLOCK_BYTES):
            while block:
                if inflate.eof:
                    inflate = zstd.ZstdDecompressor()
                out.write(inflate.decompress(block))
                block = inflate.unused_data if inflate.eof else b""
    return unpacked


class StorageFile:
    """Messages of one file, read from disk each time they are asked for."""

    def __init__(self, path: Path, is_packed: bool = False) -> None:
        """Looks at a file.

        Args:
            path: ``.mcap`` or ``.db3``.
            is_packed: every message is compressed on its own.

        Raises:
            BagError: it cannot be read.
        """
        self.path = path
        self._is_packed = is_packed
        self.topics: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.start_ns, self.end_ns = FOREVER_NS, -FOREVER_NS
        """Of the first and after the last message."""
        sound = is_whole(path) if path.suffix == ".mcap" else is_whole_sqlite(path)
        self._scan = None if sound else McapScan(path) if path.suffix == ".mcap" else SqliteScan(path)
        if self._scan is not None:
            self._count()
            return
        with readable(path):
            self._index = McapIndex(path) if path.suffix == ".mcap" else None
        if self._index is not None and self._index.is_complete:
            self.topics, self.counts = self._index.topics, self._index.counts
            if self.counts.total():
                self.start_ns, self.end_ns = self._index.start_ns, self._index.end_ns
            return
        # sqlite3, and MCAP without an index of its chunks.
        self._index, self._reader = None, Reader(path)
        with readable(path):
            self._reader.open()
            weakref.finalize(self, self._reader.close)
            for connection in self._reader.connections:
                self.topics[connection.topic] = connection.msgtype
                self.counts[connection.topic] += connection.msgcount
            if self._reader.message_count:
                self.start_ns, self.end_ns = self._reader.start_time, self._reader.end_time

    @property
    def is_damaged(self) -> bool:
        """Whether it ends too early."""
        return self._scan is not None

    @property
    def damage(self) -> str:
        """What is wrong with a damaged file, to go after its name."""
        with self.path.open("rb") as file:
            head = file.read(len(_BEGINNINGS[self.path.suffix]))
        if not head:
            return "is empty"
        return "is cut short" if _BEGINNINGS[self.path.suffix].startswith(head) else f"is no {self.path.suffix} file"

    @property
    def lost_bytes(self) -> int:
        """Bytes known to be lost."""
        return self._scan.lost_bytes if self._scan else 0

    def messages(
        self, topics: Collection[str], start_ns: int = -FOREVER_NS, stop_ns: int = FOREVER_NS
    ) -> Iterator[Message]:
        """Yields (topic, log time [ns], CDR) of what was recorded in [start, stop), in that order.

        Raises:
            BagError: the file is corrupt on the way.
        """
        with readable(self.path):
            if self._scan is not None:
                found = (m for m in self._scan.messages() if m[0] in topics and start_ns <= m[1] < stop_ns)
            elif self._index is not None:
                found = self._index.messages(topics, start_ns, stop_ns)
            else:
                found = self._read(topics, start_ns, stop_ns)
            for topic, log_ns, cdr in found:
                yield topic, log_ns, zstd.decompress(cdr) if self._is_packed else cdr

    def _read(self, topics: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Message]:
        connections = [connection for connection in self._reader.connections if connection.topic in topics]
        if connections:
            start = None if start_ns == -FOREVER_NS else start_ns
            stop = None if stop_ns == FOREVER_NS else stop_ns
            for connection, log_ns, cdr in self._reader.messages(connections, start, stop):
                yield connection.topic, log_ns, bytes(cdr)

    def _count(self) -> None:
        with readable(self.path):
            for topic, log_ns, _ in self._scan.messages():
                self.counts[topic] += 1
                self.start_ns, self.end_ns = min(self.start_ns, log_ns), max(self.end_ns, log_ns + 1)
            self.topics.update(self._scan.topics)
