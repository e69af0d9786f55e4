"""The stored form of a bag: a rosbag2 folder or a single file, split or not, compressed or not, whole or cut short."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from dit_policy_ros.data.bag_storage import FOREVER_NS, PACKED_SUFFIXES, StorageFile, is_storage, readable, unpack
from dit_policy_ros.data.losses import ADVICE, Loss, told
from dit_policy_ros.data.mcap_scan import Message, embedded_metadata, is_whole
from dit_policy_ros.errors import BagError
from dit_policy_ros.types import seconds

_MOST_PARTS = 10_000
# What PyYAML raises on damaged text, besides its own.
_YAML_DAMAGE = (yaml.YAMLError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError, RecursionError)


class BagFile:
    """Messages of a bag, read from disk each time they are asked for."""

    def __init__(self, path: str | Path, recover: bool = False) -> None:
        """Looks at a bag.

        Args:
            path: rosbag2 folder, or a single ``.mcap`` or ``.db3`` file, packed with zstd or not.
            recover: read a bag that was cut short or is damaged as far as it is whole; ``lost`` tells the rest.

        Raises:
            BagError: there is no bag, or it is damaged and ``recover`` was not asked for or does not help.
        """
        self._recover = recover
        self._checked = False
        self._unreadable: dict[tuple[str, int], Loss] = {}
        """Topic and time to messages that were read and not understood."""
        with readable(Path(path)):
            self._open(Path(path), recover)

    def _open(self, path: Path, recover: bool) -> None:
        self.path = _find(path)
        information = _information(self.path)
        self.custom_data: Mapping[str, str] = information.get("custom_data") or {}
        """Of ``metadata.yaml``."""
        present, missing = _files(self.path, information, recover)
        packed = [file for file in present if file.suffix in PACKED_SUFFIXES]
        self._scratch = TemporaryDirectory(prefix="dit_policy_ros_") if packed else None
        unpacked = [unpack(file, Path(self._scratch.name)) if file in packed else (file, "") for file in present]
        is_packed = str(information.get("compression_mode") or "").lower() == "message"
        files = (
            StorageFile(file, is_packed, recover, damage, shown.with_name(file.name))
            for shown, (file, damage) in zip(present, unpacked, strict=True)
        )
        self._files = sorted(files, key=lambda file: file.start_ns)
        self._missing = missing
        self._promised = information.get("message_count")
        self._promised_topics = _promised_topics(information)
        self._span = (-FOREVER_NS, FOREVER_NS)
        self.topics: dict[str, str] = {}
        """Topic to message type."""
        self.counts: Counter[str] = Counter()
        """Topic to number of messages."""
        for file in self._files:
            self.topics.update(file.topics)
            self.counts.update(file.counts)
        if self.lost and not recover:
            raise BagError(f"{self.lost}. {ADVICE}")

    @property
    def lost(self) -> str:
        """What a damaged bag lacks, in a sentence, as far as it was read; empty for a whole one.

        Raises:
            BagError: it holds no whole message.
        """
        if not (self._missing or self._unreadable or any(file.damage for file in self._files)):
            return ""
        self.check()
        return self._loss()

    def check(self) -> None:
        """Reads everything once, so that ``lost`` tells of all damage and ``counts`` holds what is whole.

        Raises:
            BagError: there is damage that was not known, and ``recover`` was not asked for.
        """
        if self._checked:
            return
        self._checked = True
        for file in self._files:
            file.check()
        if self._span == (-FOREVER_NS, FOREVER_NS):
            self.counts = sum((file.counts for file in self._files), Counter())

    def lose(self, topic: str, time_ns: int, problem: BagError) -> None:
        """Notes that a message was not understood.

        Raises:
            BagError: the one given, where ``recover`` was not asked for.
        """
        if not self._recover:
            raise problem
        self._unreadable[topic, time_ns] = Loss(f"a message on {topic}", time_ns, time_ns, {topic: 1})

    @property
    def span_ns(self) -> tuple[int, int]:
        """Log times of the first message and after the last; equal for a bag without messages."""
        start_ns = min((file.start_ns for file in self._files), default=FOREVER_NS)
        end_ns = max((file.end_ns for file in self._files), default=-FOREVER_NS)
        if start_ns >= end_ns:
            return 0, 0
        return max(start_ns, self._span[0]), min(end_ns, self._span[1])

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yields (topic, log time [ns], CDR) of the topics, in the order of log time.

        Raises:
            BagError: the file breaks off or is corrupt on the way.
        """
        for files in _overlapping(self._files):
            streams = [file.messages(topics, *self._span) for file in files]
            yield from streams[0] if len(streams) == 1 else heapq.merge(*streams, key=lambda message: message[1])

    def cut(self, start_ns: int, stop_ns: int) -> BagFile:
        """Returns the part of the bag that was recorded in [start, stop); reads that part once to count it."""
        part = copy(self)
        part._span = (max(start_ns, self._span[0]), min(stop_ns, self._span[1]))
        part.counts = Counter(topic for topic, _, _ in part.messages(self.topics))
        return part

    def require(self, topic: str, what: str) -> str:
        """Returns a topic that has messages.

        Raises:
            BagError: it has none; the text lists the topics that have.
        """
        if not self.counts[topic]:
            present = ", ".join(sorted(name for name in self.counts if self.counts[name])) or "none"
            lost = f" {self.lost}." if self.lost else ""
            raise BagError(f"{self.path} has no message on {topic} ({what}). Topics present: {present}.{lost}")
        return topic

    def _loss(self) -> str:
        whole: Counter[str] = sum((file.counts for file in self._files), Counter())
        whole -= Counter(topic for topic, _ in self._unreadable)
        damaged = [file for file in self._files if file.damage]
        start_ns = min((file.start_ns for file in self._files), default=FOREVER_NS)
        end_ns = max((file.end_ns for file in self._files), default=-FOREVER_NS)
        promised_topics = self._promised_topics if len(damaged) == 1 and not self._missing else {}
        names = []
        for file in damaged:
            pieces = file.losses
            text = told(pieces, start_ns, promised_topics, whole) if pieces else ""
            names.append(f"{file.shown} {file.damage}{', ' if text else ''}{text}")
        if self._unreadable:
            messages = [loss for _, loss in sorted(self._unreadable.items())]
            names.append(f"{self.path} holds damaged messages, {told(messages, start_ns)}")
        what = " and ".join(names + ([f"{self.path} lacks {', '.join(self._missing)}"] if self._missing else []))
        total = whole.total()
        if not total:
            raise BagError(f"{what} and holds no whole message; copy or record it again.")
        promised = self._promised
        if promised is None and not self._missing and all(file.promised is not None for file in self._files):
            promised = sum(file.promised or 0 for file in self._files)
        kept = f"{total} messages over {seconds(end_ns - 1 - start_ns):.2f} s are whole"
        lost_bytes = sum(file.lost_bytes for file in damaged)
        if promised is not None and promised >= total:
            return f"{what}: {kept}, {promised - total} of {promised} messages are lost"
        if lost_bytes:
            return f"{what}: {kept}, {lost_bytes} bytes at the end are lost"
        return f"{what}: {kept}, all others are lost" if self._missing else f"{what}: {kept}"


def _overlapping(files: Sequence[StorageFile]) -> Iterator[list[StorageFile]]:
    """Groups files that are in the order of their first message, so that one file is open at a time where possible."""
    group: list[StorageFile] = []
    end_ns = -FOREVER_NS
    for file in files:
        if group and file.start_ns >= end_ns:
            yield group
            group = []
        group.append(file)
        end_ns = max(end_ns, file.end_ns)
    if group:
        yield group


def _find(path: Path) -> Path:
    """Returns the folder with ``metadata.yaml`` or with the parts of one bag, or the single storage file."""
    if path.is_file():
        if not is_storage(path):
            raise BagError(f"{path} is no bag; give a rosbag2 folder, or a file ending in .mcap or .db3.")
        return path
    if not path.is_dir():
        raise BagError(f"There is no bag at {path}; give a rosbag2 folder, or a .mcap or .db3 file.")
    if (path / "metadata.yaml").exists():
        return path
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and is_storage(file)]
    if len(files) == 1:
        return files[0]
    if not files or {file.parent for file in files} != {path} or len({_stem(file) for file in files}) > 1:
        raise BagError(f"{path} has no metadata.yaml and {len(files)} bag files; give one bag folder or one file.")
    return path


def _stem(file: Path) -> str:
    """Returns what the parts of a split bag share: 'run' for run_12.mcap."""
    name = file.name.split(".")[0]
    stem, _, number = name.rpartition("_")
    return stem if stem and number.isdigit() else name


def _information(path: Path) -> Mapping[str, Any]:
    """Returns the ``rosbag2_bagfile_information`` of a folder or of a whole MCAP file; empty where there is none."""
    file = path / "metadata.yaml"
    if path.is_dir() and file.exists():
        text = file.read_text(encoding="utf-8", errors="replace")
    elif path.suffix == ".mcap" and is_whole(path):
        text = embedded_metadata(path)
    else:
        return {}
    try:
        data = yaml.safe_load(text) or {}
    except _YAML_DAMAGE as problem:
        raise BagError(f"{path} has damaged metadata; open the .mcap or .db3 file itself.") from problem
    information = data.get("rosbag2_bagfile_information", data) if isinstance(data, dict) else None
    if not isinstance(information, dict) or not _is_described(information, path.is_dir()):
        raise BagError(f"{file} does not describe a rosbag2; open the .mcap or .db3 file itself.")
    return information


def _is_described(information: Mapping[str, Any], with_files: bool) -> bool:
    """Returns whether the entries that are used have the form that rosbag2 gives them."""
    names = information.get("relative_file_paths", None if with_files else [])
    custom, count = information.get("custom_data") or {}, information.get("message_count") or 0
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return is_list and isinstance(custom, dict) and isinstance(count, int)


def _promised_topics(information: Mapping[str, Any]) -> dict[str, int]:
    """Returns topic to messages, as far as the metadata tell."""
    entries = information.get("topics_with_message_count")
    found = {}
    for entry in entries if isinstance(entries, list) else ():
        topic = entry.get("topic_metadata") if isinstance(entry, dict) else None
        name = topic.get("name") if isinstance(topic, dict) else None
        if isinstance(name, str) and isinstance(entry.get("message_count"), int):
            found[name] = entry["message_count"]
    return found


def _files(path: Path, information: Mapping[str, Any], recover: bool) -> tuple[list[Path], list[str]]:
    """Returns the storage files, and the names of those that ought to be there."""
    if path.is_file():
        return [path], []
    if "relative_file_paths" not in information:
        found = [file for file in sorted(path.iterdir()) if is_storage(file)]
        missing = _skipped(found)
        if missing and not recover:
            raise BagError(f"{path} lacks {', '.join(missing)} between its files; copy the folder again.")
        return found, missing
    files = [path / Path(name).name for name in information["relative_file_paths"]]
    missing = [file.name for file in files if not file.exists()]
    if missing and (not recover or len(missing) == len(files)):
        raise BagError(f"{path} lacks {', '.join(missing)}, which its metadata.yaml names; copy the folder again.")
    return [file for file in files if file.exists()], missing


def _skipped(files: Sequence[Path]) -> list[str]:
    """Returns the names of parts that are missing between others, by their numbers."""
    numbers = {}
    for file in files:
        stem, _, number = file.name.split(".")[0].rpartition("_")
        if not stem or not number.isdigit():
            return []
        numbers[int(number)] = file.name
    first, last = min(numbers, default=0), max(numbers, default=0)
    if last - first > _MOST_PARTS:  # Dates, for example.
        return []
    suffix = next(iter(numbers.values()), "").partition(".")[2]
    return [f"{_stem(files[0])}_{k}.{suffix}" for k in range(first, last) if k not in numbers]
