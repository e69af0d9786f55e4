"""Rows of numbers that grow without filling the memory: all but the newest lie in a nameless temporary file.

The file is where ``TMPDIR`` says, and gone when the table is. Small tables never have one.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np

_BLOCK_BYTES = 1 << 16
"""Kept in memory; the older half goes to the file when it is full."""
_PASS_ROWS = 4096
"""Rows at a time, where all are looked at."""
_LOOKS = 61
"""Small looks between two releases, which cost some microseconds; prime, so that all who take turns get theirs."""
_looks = count()


class ScratchTable:
    """Rows of ``width`` equal numbers, or single numbers where the width is 0."""

    def __init__(self, width: int = 0, dtype: type | str = np.float64) -> None:
        shape = (width,) if width else ()
        size = np.dtype(dtype).itemsize * max(width, 1)
        self._block = np.empty((max(2, _BLOCK_BYTES // size), *shape), dtype)
        self._used = 0
        self._file: Any = None
        self._filed = 0
        """Rows in the file."""
        self._array: np.ndarray | None = None

    def __len__(self) -> int:
        return self._filed + self._used

    def append(self, row: Any) -> None:
        """Adds one row."""
        if self._used == len(self._block):
            self._file_rows(len(self._block) // 2)
        self._block[self._used] = row
        self._used += 1
        self._array = None

    def extend(self, rows: np.ndarray) -> None:
        """Adds (N,) or (N, width) rows."""
        while len(rows):
            if self._used == len(self._block):
                self._file_rows(len(self._block) // 2)
            part = rows[: len(self._block) - self._used]
            self._block[self._used : self._used + len(part)] = part
            self._used += len(part)
            self._array, rows = None, rows[len(part) :]

    def truncate(self, count: int) -> None:
        """Forgets all but the first ``count`` rows; arrays that were given out are not to be used after it."""
        if count < self._filed:
            self._filed, self._used = count, 0
        else:
            self._used = min(self._used, count - self._filed)
        self._array = None

    def first_at_or_after(self, value: float) -> int:
        """Returns the index of the first of the numbers, which increase, that is not smaller; the length if all are."""
        if self._filed and (not self._used or value <= self._block[0]):
            return int(np.searchsorted(self.array(), value))
        return self._filed + int(np.searchsorted(self._block[: self._used], value))

    def array(self) -> np.ndarray:
        """Returns all rows, (N,) or (N, width); read-only. Those of a file are read as they are looked at."""
        if self._array is None:
            self._array = self._mapped() if self._filed else self._block[: self._used].copy()
            self._array.flags.writeable = False
        return self._array

    def passes(self) -> Iterator[np.ndarray]:
        """Yields all rows in order, some thousand at a time."""
        yield from passes(self.array())

    def _file_rows(self, count: int) -> None:
        """Moves the oldest rows of the block to the file."""
        if self._file is None:
            # Closed, and so removed, with the table; a mapping outlives that.
            self._file = tempfile.TemporaryFile(prefix="dit_policy_ros_")  # noqa: SIM115
        self._file.seek(self._filed * self._block[:1].nbytes)
        self._file.write(self._block[:count].tobytes())
        left = self._used - count
        self._block[:left] = self._block[count : self._used].copy()
        self._filed, self._used = self._filed + count, left

    def _mapped(self) -> np.ndarray:
        self._file_rows(self._used)
        self._file.flush()
        size = self._filed * self._block[:1].nbytes
        mapped = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, self._block.dtype).reshape(self._filed, *self._block.shape[1:])


def release(*arrays: np.ndarray) -> None:
    """Lets go of the pages that looking at a table's array brought into memory; others are left alone."""
    for array in arrays:
        holder: Any = array
        while isinstance(holder, np.ndarray):
            holder = holder.base
        holder = holder.obj if isinstance(holder, memoryview) else holder
        if isinstance(holder, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            holder.madvise(mmap.MADV_DONTNEED)


def release_now_and_then(*arrays: np.ndarray) -> None:
    """``release`` for those who look at a few rows at a time, many times."""
    if next(_looks) % _LOOKS == 0:
        release(*arrays)


def passes(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the rows of an array in order, some thousand at a time, and lets go of them after."""
    for begin in range(0, len(array), _PASS_ROWS):
        yield array[begin : begin + _PASS_ROWS]
        release(array)


def thinned(array: np.ndarray, step: int) -> np.ndarray:
    """Returns every ``step``-th row."""
    found, begin = [array[:0]], 0
    for part in passes(array):
        found.append(part[-begin % step :: step].copy())
        begin += len(part)
    return np.concatenate(found)


def reordered(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Returns ``array[index]``, as far as possible outside the memory."""
    table = ScratchTable(array.shape[1] if array.ndim == 2 else 0, array.dtype)
    for part in passes(index):
        table.extend(array[part])
        release(array)
    return table.array()
