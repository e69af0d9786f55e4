"""One storage file of a bag: MCAP or sqlite3, whole or cut short, its messages compressed or not."""

from __future__ import annotations

import struct
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import apsw

from dit_policy_ros.data.losses import Loss, LossError
from dit_policy_ros.data.mcap_index import McapIndex
from dit_policy_ros.data.mcap_scan import MAGIC, Message, ZstdError
from dit_policy_ros.data.sqlite_file import SQLITE_MAGIC, SqliteFile
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
_BLOCK_BYTES = 1 << 16
"""Small, because what came out of a block with damage is lost."""
# What storages and decompressors raise on damaged bytes.
_DAMAGE = (
    *(OSError, ValueError, TypeError, LookupError, RuntimeError, ArithmeticError, MemoryError, struct.error),
    *(ZstdError, apsw.Error),
)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what damaged bytes and missing rights raise in the libraries into a BagError."""
    try:
        yield
    except LossError as problem:
        raise BagError(f"{path} is damaged, {problem}") from problem
    except PermissionError as problem:
        raise BagError(f"{problem.filename or path} may not be read by this user; ask for the right to.") from problem
    except _DAMAGE as problem:
        text = " ".join(str(problem).split()).rstrip(".")
        raise BagError(f"{path} cannot be read: {text}. Copy or record it again.") from problem


def is_storage(path: Path) -> bool:
    """Returns whether a file's name is that of a storage file, packed or not."""
    name = path.with_suffix("") if path.suffix in PACKED_SUFFIXES else path
    return name.suffix in SUFFIXES


def unpack(path: Path, folder: Path) -> tuple[Path, str]:
    """Unpacks a file that is compressed as a whole into a folder, as far as it goes.

    Returns:
        The new file, and what is wrong with the old one, to go after its name; empty where nothing is.
    """
    unpacked = folder / path.with_suffix("").name
    with path.open("rb") as packed, unpacked.open("wb") as out:
        inflate = zstd.ZstdDecompressor()
        while block := packed.read(_BLOCK_BYTES):
            while block:
                if inflate.eof:
                    inflate = zstd.ZstdDecompressor()
                try:
                    out.write(inflate.decompress(block))
                except ZstdError:
                    # What came out so far is judged like a file that was cut short.
                    place = packed.tell() - len(block)
                    return unpacked, f"is damaged in its compression at byte {place} of {path.stat().st_size}"
                block = inflate.unused_data if inflate.eof else b""
        is_cut = not inflate.eof and packed.tell() > 0
    return unpacked, "is cut short" if is_cut else ""


class StorageFile:
    """Messages of one file, read from disk each time they are asked for."""

    def __init__(
        self, path: Path, is_packed: bool = False, recover: bool = False, damage: str = "", shown: Path | None = None
    ) -> None:
        """Looks at a file.

        Args:
            path: ``.mcap`` or ``.db3``.
            is_packed: every message is compressed on its own.
            recover: leave out what is damaged, and tell of it, instead of an error.
            damage: what is known to be wrong with the file from before.
            shown: what to call it in errors, where it is the unpacked copy of another.

        Raises:
            BagError: it cannot be read.
        """
        self.path = path
        self.shown = shown or path
        self._is_packed, self._recover = is_packed, recover
        self._damage = damage
        self._unpackable: dict[tuple[str, int], Loss] = {}
        """Topic and log time to what its compression hides."""
        with readable(self.shown):
            if path.suffix == ".mcap":
                self._store: McapIndex | SqliteFile = McapIndex(path, recover=recover)
                if not self._store.is_complete:
                    self._store.rebuild()
            else:
                self._store = SqliteFile(path, recover)

    @property
    def topics(self) -> Mapping[str, str]:
        """Topic to message type."""
        return self._store.topics

    @property
    def counts(self) -> Counter[str]:
        """Topic to messages, without those that are known to be lost."""
        lost = Counter(topic for topic, _ in self._unpackable)
        return self._store.counts - lost if lost else self._store.counts

    @property
    def start_ns(self) -> int:
        """Log time of the first message; ``FOREVER_NS`` where there is none."""
        return self._store.start_ns if self._store.counts.total() else FOREVER_NS

    @property
    def end_ns(self) -> int:
        """After the log time of the last message."""
        return self._store.end_ns if self._store.counts.total() else -FOREVER_NS

    @property
    def losses(self) -> list[Loss]:
        """What cannot be read, as far as it was met, by its place."""
        pieces = sorted(self._store.losses.items(), key=lambda item: abs(item[0]))
        return [loss for _, loss in pieces] + [loss for _, loss in sorted(self._unpackable.items())]

    @property
    def damage(self) -> str:
        """What is wrong with a damaged file, to go after its name; empty for a sound one, as far as it was read."""
        if self._damage:
            return self._damage
        beginning = _BEGINNINGS[self.path.suffix]
        with self.path.open("rb") as file:
            head = file.read(len(beginning))
        if not head:
            return "is empty"
        if not beginning.startswith(head) and not self._store.counts:
            return f"is no {self.path.suffix} file"
        if self._store.is_cut:
            return "is cut short"
        if self.losses or head != beginning:
            return "is damaged"
        is_summary = isinstance(self._store, McapIndex) and self._store.is_summary_damaged
        return "has a damaged index" if is_summary else ""

    @property
    def lost_bytes(self) -> int:
        """Bytes known to be lost at the end."""
        return self._store.lost_bytes

    @property
    def promised(self) -> int | None:
        """Messages that the file's own summary tells of, where it has one."""
        return self._store.promised if isinstance(self._store, McapIndex) else None

    def check(self) -> None:
        """Reads everything once, so that all damage is known and ``counts`` holds what is whole.

        Raises:
            BagError: there is damage that was not known, and ``recover`` was not asked for.
        """
        with readable(self.shown):
            self._store.check()
        if self._is_packed:
            for _ in self.messages(self.topics):
                pass

    def messages(
        self, topics: Collection[str], start_ns: int = -FOREVER_NS, stop_ns: int = FOREVER_NS
    ) -> Iterator[Message]:
        """Yields (topic, log time [ns], CDR) of what was recorded in [start, stop), in that order.

        Raises:
            BagError: the file is damaged on the way, and ``recover`` was not asked for.
        """
        with readable(self.shown):
            for topic, log_ns, cdr in self._store.messages(topics, start_ns, stop_ns):
                if not self._is_packed:
                    yield topic, log_ns, cdr
                    continue
                try:
                    plain = zstd.decompress(cdr)
                except ZstdError as problem:
                    loss = Loss(f"a packed message on {topic}", log_ns, log_ns, {topic: 1})
                    if not self._recover:
                        raise LossError(loss, self.start_ns) from problem
                    self._unpackable[topic, log_ns] = loss
                else:
                    yield topic, log_ns, plain
