"""Reads an sqlite3 storage file in the order of its rows, without its index, so also one that is cut or damaged.

Format: https://www.sqlite.org/fileformat2.html. Rows lie about in the order of recording. What cannot be read is passed
over by row numbers, which count up in a bag: rows of a damaged page, or one whose data lies on a damaged page.
"""

from __future__ import annotations

import heapq
import struct
import weakref
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import apsw

from dit_policy_ros.data.losses import Loss, LossError
from dit_policy_ros.data.mcap_scan import Message

SQLITE_MAGIC = b"SQLite format 3\x00"
_EVERY_ROWS = 1024
_LATEST_NS = 1 << 62
_SLACK_NS = 10_000_000_000
"""Further than rows are out of order in time."""
_MOST_ROWS = 1 << 40
_DAMAGE = (apsw.Error, MemoryError, OverflowError)


class SqliteFile:
    """Messages of one file."""

    def __init__(self, path: Path, recover: bool = False) -> None:
        """Reads topic and log time of every row.

        Args:
            path: of the file.
            recover: leave out what is damaged and note it in ``losses``, instead of an error.

        Raises:
            apsw.Error: there is no database, or it holds no table of topics.
            LossError: it is damaged, and ``recover`` was not asked for.
        """
        self.path = path
        self.topics: dict[str, str] = {}
        """Topic to message type."""
        self.counts: Counter[str] = Counter()
        self.start_ns, self.end_ns = _LATEST_NS, -_LATEST_NS
        """Of the first and after the last message."""
        self.losses: dict[int, Loss] = {}
        """Row to what cannot be read from there on, as far as it was met."""
        page_bytes, pages = _header(path)
        size = path.stat().st_size
        self.is_cut = pages is None or size < page_bytes * pages
        """Whether the file is shorter than its header says."""
        self.lost_bytes = size if pages is None else max(0, page_bytes * pages - size + size % page_bytes)
        """Bytes that the header promises and the file lacks."""
        self._recover = recover or self.is_cut
        self._marks_ns, self._marks = array("q"), array("q")
        """Of every thousandth row: the newest log time so far, and the row."""
        self._late_ns = 0
        """The most that a row is older than one before it."""
        self._names: dict[int, str] = {}
        if pages is not None:
            self._open(size - size % page_bytes)

    def messages(self, topics: Collection[str], start_ns: int, stop_ns: int) -> Iterator[Message]:
        """Yields (topic, log time [ns], CDR) of what was recorded in [start, stop), in that order.

        Raises:
            LossError: a row is damaged, and ``recover`` was not asked for.
        """
        keys = [key for key, topic in self._names.items() if topic in topics]
        mark = bisect_left(self._marks_ns, start_ns) - 1
        begin = self._marks[mark] - 1 if mark >= 0 else -1
        if not self._late_ns:
            for _, key, log_ns, cdr in self._rows(", data", keys, begin):
                if log_ns >= stop_ns:
                    return
                if log_ns >= start_ns:
                    yield self._names[key], log_ns, cdr
            return
        for log_ns, row, key in self._sorted(keys, begin, start_ns, stop_ns):
            try:
                ((cdr,),) = self._execute("SELECT data FROM messages WHERE id = ?", (row,))
            except _DAMAGE as problem:
                self._lose(row, self._row_loss(row), problem)
            else:
                if isinstance(cdr, bytes):
                    yield self._names[key], log_ns, cdr

    def check(self) -> None:
        """Reads every row once, so that all damage is known and ``counts`` holds what is whole."""
        if not self._marks:
            return
        self.counts = Counter()
        for _, key, _, _ in self._rows(", data", list(self._names), -1):
            self.counts[self._names[key]] += 1

    def _open(self, whole_bytes: int) -> None:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        self._pages = _WholePages(whole_bytes) if self.is_cut else None
        name = self._pages.name if self._pages else None
        self._connection = apsw.Connection(f"file:{self.path}?immutable=1", flags=flags, vfs=name)
        weakref.finalize(self, _close, self._connection, self._pages)
        if self.is_cut:
            # Otherwise such a file is refused as a whole.
            self._connection.execute("PRAGMA writable_schema = ON")
        try:
            rows = list(self._execute("SELECT id, name, type FROM topics"))
        except _DAMAGE:
            if not self.is_cut:
                raise
            rows = []
        self._names = {key: name for key, name, kind in rows if isinstance(name, str) and isinstance(kind, str)}
        self.topics = {name: kind for _, name, kind in rows if name in self._names.values()}
        if rows:
            self._survey()

    def _survey(self) -> None:
        """Notes counts, times and marks."""
        newest_ns, number, last = -1, 0, 0
        for row, key, log_ns in self._rows("", None, -1):
            if row > last + 1:
                self._refuse_gap(last + 1, row - 1, newest_ns, log_ns)
            last = row
            name = self._names.get(key)
            if name is None or not isinstance(log_ns, int) or not 0 <= log_ns < _LATEST_NS:
                self._lose(row, Loss(f"row {row}", newest_ns if number else None, None), None)
                continue
            self.counts[name] += 1
            self.start_ns = min(self.start_ns, log_ns)
            self._late_ns = max(self._late_ns, newest_ns - log_ns)
            if number % _EVERY_ROWS == 0:
                self._marks_ns.append(max(newest_ns, 0))
                self._marks.append(row)
            newest_ns = max(newest_ns, log_ns)
            number += 1
        if number:
            self.end_ns = newest_ns + 1
        if not self.is_cut:
            self._refuse_gap(last + 1, _LATEST_NS, newest_ns, None)

    def _refuse_gap(self, first: int, last: int, before_ns: int, after_ns: object) -> None:
        """Notes rows that the table lacks and the index of times has; others were deleted on purpose."""
        if times := self._indexed(first, last, before_ns, after_ns):
            self._lose(first, Loss(f"rows from {first} on", *times), None)

    def _indexed(self, first: int, last: int, before_ns: object, after_ns: object) -> tuple[int, int] | None:
        """Returns first and last log time that the index of times has of some rows; None if it has none.

        Args:
            before_ns, after_ns: log times of the rows before and after them, where they are known.
        """
        least_ns = before_ns - _SLACK_NS if isinstance(before_ns, int) else -_LATEST_NS
        most_ns = after_ns + _SLACK_NS if isinstance(after_ns, int) else _LATEST_NS
        query = (
            "SELECT min(timestamp), max(timestamp) FROM messages INDEXED BY timestamp_idx "
            "WHERE timestamp BETWEEN ? AND ? AND id BETWEEN ? AND ?"
        )
        try:
            ((first_ns, last_ns),) = self._execute(query, (least_ns, min(most_ns, _LATEST_NS), first, last))
        except _DAMAGE:
            return None
        return (first_ns, last_ns) if isinstance(first_ns, int) and isinstance(last_ns, int) else None

    def _sorted(self, keys: list[int], begin: int, start_ns: int, stop_ns: int) -> Iterator[tuple[int, int, int]]:
        """Yields (log time, row, topic) by time; holds only what a later row may still come before."""
        waiting: list[tuple[int, int, int]] = []
        newest_ns = -1
        for row, key, log_ns in self._rows("", keys, begin):
            newest_ns = max(newest_ns, log_ns)
            if start_ns <= log_ns < stop_ns:
                heapq.heappush(waiting, (log_ns, row, key))
            while waiting and waiting[0][0] <= newest_ns - self._late_ns:
                yield heapq.heappop(waiting)
            if newest_ns - self._late_ns >= stop_ns:
                break
        while waiting:
            yield heapq.heappop(waiting)

    def _rows(self, data: str, keys: list[int] | None, after: int) -> Iterator[tuple[Any, ...]]:
        """Yields (row, topic, log time) and the data if asked for, by row number, of all topics or some."""
        chosen = "" if keys is None else f"AND topic_id IN ({', '.join(map(str, keys))})"
        query = f"SELECT id, topic_id, timestamp{data} FROM messages NOT INDEXED WHERE id > ? {chosen} ORDER BY id"
        is_through = keys == []
        while not is_through:
            try:
                for found in self._execute(query, (after,)):
                    if found[0] <= after:
                        raise apsw.CorruptError("rows out of order")
                    after = found[0]
                    if keys is None or self._is_sound(found):
                        yield found
                is_through = True
            except _DAMAGE as problem:
                after, is_through = yield from self._pass_over(query, keys, after, problem)

    def _pass_over(
        self, query: str, keys: list[int] | None, after: int, problem: Exception
    ) -> Iterator[tuple[Any, ...]]:
        """Yields rows one by one up to the damage; returns the row to go on after, and whether there is none."""
        while True:
            row, is_read = self._first_after(after)
            if not is_read:
                row = self._find_after(after, problem)
                return (after, True) if row is None else (row - 1, False)
            if row is None:
                return after, True
            try:
                one = list(self._execute(query.replace("id > ?", "id = ?"), (row,)))
            except _DAMAGE as second:
                self._lose(row, self._row_loss(row), second)
                return row, False
            if not one and keys is None:
                self._lose(row, Loss(f"row {row}"), problem)
            yield from (found for found in one if keys is None or self._is_sound(found))
            after = row

    def _is_sound(self, found: tuple[Any, ...]) -> bool:
        """Returns whether a row holds what it must."""
        row, _, log_ns, *data = found
        if not isinstance(log_ns, int) or not 0 <= log_ns < _LATEST_NS:
            return False  # Noted as the file was opened.
        if data and not isinstance(data[0], bytes):
            self._lose(row, self._row_loss(row), None)
            return False
        return True

    def _find_after(self, after: int, problem: Exception) -> int | None:
        """Returns the next row whose page can be read, None at the end; what lies between is noted as lost."""
        row, is_read, step = None, False, 1
        while not is_read and step < _MOST_ROWS:
            step *= 2
            row, is_read = self._first_after(after + step)
        if not is_read:
            if not self.is_cut:
                place = f"all rows after {after}" if after >= 0 else "the table of messages"
                self._lose(after + 1, Loss(place, self._time_of(after), None), problem)
            return None
        least = step // 2
        while step - least > 1:
            middle = (least + step) // 2
            found, is_read = self._first_after(after + middle)
            row, step, least = (found, middle, least) if is_read else (row, step, middle)
        last = after + step if row is None else row - 1
        if row is not None or not self.is_cut:
            before_ns, after_ns = self._time_of(after), self._time_of(row)
            times = self._indexed(after + 1, last, before_ns, after_ns) or (before_ns, after_ns)
            self._lose(after + 1, Loss(f"rows {after + 1} to {last}", *times), problem)
        return row

    def _first_after(self, after: int) -> tuple[int | None, bool]:
        """Returns the first row after another, None where there is none, and whether its page can be read."""
        try:
            found = list(
                self._execute("SELECT id FROM messages NOT INDEXED WHERE id > ? ORDER BY id LIMIT 1", (after,))
            )
        except _DAMAGE:
            return None, False
        if found and found[0][0] <= after:  # As a page without order gives it.
            return None, False
        return (found[0][0] if found else None), True

    def _time_of(self, row: int | None) -> int | None:
        try:
            found = list(self._execute("SELECT timestamp FROM messages WHERE id = ?", (row,)))
        except _DAMAGE:
            return None
        return found[0][0] if found and isinstance(found[0][0], int) else None

    def _row_loss(self, row: int) -> Loss:
        """Returns what is known of a row whose data cannot be read."""
        try:
            ((key, log_ns),) = self._execute("SELECT topic_id, timestamp FROM messages WHERE id = ?", (row,))
        except (*_DAMAGE, ValueError):
            return Loss(f"row {row}")
        return Loss(f"row {row}", log_ns, log_ns, {self._names[key]: 1} if key in self._names else {})

    def _lose(self, row: int, loss: Loss, problem: Exception | None) -> None:
        """Notes a loss.

        Raises:
            LossError: damage is not to be passed over.
        """
        if not self._recover:
            origin_ns = self.start_ns if self.start_ns < _LATEST_NS else 0
            raise LossError(loss, origin_ns) from problem
        self.losses.setdefault(row, loss)

    def _execute(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        return self._connection.execute(query, values)


def _close(connection: apsw.Connection, _: apsw.VFS | None) -> None:
    """Closes a connection; the other is to live as long, because the connection only knows its name."""
    connection.close()


def _header(path: Path) -> tuple[int, int | None]:
    """Returns bytes of a page and number of pages, which is None where the header is not there."""
    with path.open("rb") as file:
        head = file.read(100)
    if len(head) < 100 or not head.startswith(SQLITE_MAGIC):
        return 1, None
    (page_bytes,) = struct.unpack_from(">H", head, 16)
    (pages,) = struct.unpack_from(">I", head, 28)
    # SQLite refuses what is no power of two.
    return 65536 if page_bytes == 1 else max(page_bytes, 1), pages


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
