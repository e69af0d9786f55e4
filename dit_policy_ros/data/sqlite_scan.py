"""Reads an sqlite3 storage file row by row without its index, so also one that ends too early.

Format: https://www.sqlite.org/fileformat2.html. Rows lie in the order of recording, so what was cut off is the end.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from pathlib import Path

import apsw

from dit_policy_ros.data.mcap_scan import Message

SQLITE_MAGIC = b"SQLite format 3\x00"
_EVERY = 1 << 62


def is_whole_sqlite(path: Path) -> bool:
    """Returns whether a file is as long as its header says."""
    page_bytes, pages = _header(path)
    return pages > 0 and path.stat().st_size >= page_bytes * pages


def _header(path: Path) -> tuple[int, int]:
    """Returns bytes of a page and number of pages; the latter is 0 where the header is not there."""
    with path.open("rb") as file:
        head = file.read(100)
    if len(head) < 100 or not head.startswith(SQLITE_MAGIC):
        return 1, 0
    (page_bytes,) = struct.unpack_from(">H", head, 16)
    (pages,) = struct.unpack_from(">I", head, 28)
    return 65536 if page_bytes == 1 else page_bytes, pages


class SqliteScan:
    """One pass over the rows of a file that can still be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topics: dict[str, str] = {}
        """Topic to message type; known once ``messages`` was begun."""
        page_bytes, pages = _header(path)
        size = path.stat().st_size
        self._whole_bytes = size - size % page_bytes
        self.lost_bytes = max(0, page_bytes * pages - self._whole_bytes) if pages else size
        """Bytes that the header promises and the file lacks."""

    def messages(
        self, topics: Collection[str] | None = None, start_ns: int = -_EVERY, stop_ns: int = _EVERY
    ) -> Iterator[Message]:
        """Yields (topic, log time [ns], CDR) of every row before the damage."""
        pages_only = _WholePages(self._whole_bytes)
        try:
            flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
            connection = apsw.Connection(f"file:{self.path}?immutable=1", flags=flags, vfs=pages_only.name)
            # Otherwise a file shorter than its header says is refused as a whole.
            connection.execute("PRAGMA writable_schema = ON")
            known = {key: (name, kind) for key, name, kind in connection.execute("SELECT id, name, type FROM topics")}
            self.topics.update(dict(known.values()))
            # A scan by rowid touches no page of the index, which lies between those of the table.
            rows = connection.execute("SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY rowid")
            for key, log_ns, data in rows:
                topic = known[key][0] if key in known else ""
                if topic and (topics is None or topic in topics) and start_ns <= log_ns < stop_ns:
                    yield topic, log_ns, data
        except (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.SQLError):
            # This is where the damage begins; ``lost_bytes`` says how much is gone.
            return


class _WholePages(apsw.VFS):
    """Hides the part of a page at the end of a file; SQLite would fill it up with zeros."""

    def __init__(self, size: int) -> None:
        self.name = f"dit_policy_ros_{id(self)}"
        self._size = size
        super().__init__(self.name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _ShortFile(name, flags, self._size)


class _ShortFile(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int], size: int) -> None:
        super().__init__("", name, flags)
        self._size = size

    def xFileSize(self) -> int:  # noqa: N802
        return self._size
