"""Gives back the shared memory of processes that were killed: Fast DDS leaves it, 32 MiB at a time, until a reboot."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path

DIRECTORY = Path("/dev/shm")
_LOCK = "_el"
"""A segment's owner holds a lock on the file of this suffix beside it for as long as it lives."""
SETTLED_S = 10.0
"""Younger files may belong to a process that is just about to lock them."""


def sweep(directory: Path = DIRECTORY) -> int:
    """Removes the segments whose owners are gone; returns how many. Those of other users stay."""
    removed = 0
    for lock in directory.glob(f"fastdds_*{_LOCK}"):
        segment = lock.with_name(lock.name.removesuffix(_LOCK))
        if "port" in lock.name or not _is_left(lock):
            continue
        segment.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
        removed += 1
    return removed


def _is_left(lock: Path) -> bool:
    """Whether nobody holds a lock that somebody once held."""
    try:
        if time.time() - lock.stat().st_mtime < SETTLED_S:
            return False
        with lock.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # It is held, is another user's, or is gone.
        return False
    return True
