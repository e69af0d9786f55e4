"""The stored form of a bag: a rosbag2 folder or a single file, MCAP or sqlite3, whole or cut short."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import yaml
from rosbags.rosbag2 import Reader, ReaderError

from dit_policy_ros.data.mcap_scan import McapScan, Message, ZstdError, embedded_metadata, is_whole
from dit_policy_ros.errors import BagError
from dit_policy_ros.types import seconds

_SUFFIXES = (".mcap", ".db3")
# What rosbags, its storages and its decompressors raise on damaged bytes.
_DAMAGE = (ReaderError, OSError, ValueError, TypeError, LookupError, RuntimeError, struct.error, ZstdError, apsw.Error)


class BagFile:
    """Messages of a bag, read from disk each time they are asked for."""

    def __init__(self, path: str | Path, recover: bool = False) -> None:
        """Looks at a bag.

        Args:
            path: rosbag2 folder, or a single ``.mcap`` or ``.db3`` file.
            recover: read a file that was cut short as far as it is whole.

        Raises:
            BagError: there is no bag, or it is damaged and ``recover`` was not asked for or does not help.
        """
        self.path = _find(Path(path))
        self.lost = ""
        """What a damaged bag lacks, in a sentence; empty for a whole one."""
        information = _information(self.path)
        self.custom_data: Mapping[str, str] = information.get("custom_data") or {}
        damaged = [file for file in _files(self.path, information) if file.suffix == ".mcap" and not is_whole(file)]
        self._scans: list[McapScan] = []
        self.topics: dict[str, str] = {}
        """Topic to message type."""
        self.counts: Counter[str] = Counter()
        """Topic to number of messages."""
        if damaged:
            self._recover(damaged[0], information, recover)
        else:
            with _open(self.path) as reader:
                self.topics = {connection.topic: connection.msgtype for connection in reader.connections}
                self.counts.update({connection.topic: connection.msgcount for connection in reader.connections})

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yields (topic, log time [ns], CDR) of the topics, in the order of log time.

        Raises:
            BagError: the file breaks off or is corrupt on the way.
        """
        if self._scans:
            with _readable(self.path):
                for scan in self._scans:
                    yield from (message for message in scan.messages() if message[0] in topics)
            return
        with _open(self.path) as reader:
            connections = [connection for connection in reader.connections if connection.topic in topics]
            if connections:
                for connection, log_ns, cdr in reader.messages(connections):
                    yield connection.topic, log_ns, bytes(cdr)

    def require(self, topic: str, what: str) -> str:
        """Returns a topic that has messages.

        Raises:
            BagError: it has none; the text lists the topics that have.
        """
        if not self.counts[topic]:
            present = ", ".join(sorted(name for name in self.counts if self.counts[name])) or "none"
            raise BagError(f"{self.path} has no message on {topic} ({what}). Topics present: {present}.")
        return topic

    def _recover(self, damaged: Path, information: Mapping[str, Any], recover: bool) -> None:
        if information.get("compression_mode"):
            raise BagError(f"{damaged} is cut short and compressed as a whole; copy or record it again.")
        self._scans = [McapScan(file) for file in _files(self.path, information)]
        first_ns, last_ns = None, None
        with _readable(damaged):
            for scan in self._scans:
                for topic, log_ns, _ in scan.messages():
                    self.counts[topic] += 1
                    first_ns = log_ns if first_ns is None else min(first_ns, log_ns)
                    last_ns = log_ns if last_ns is None else max(last_ns, log_ns)
                self.topics.update(scan.topics)
        whole = self.counts.total()
        if first_ns is None or last_ns is None:
            raise BagError(f"{damaged} is cut short and holds no whole message; copy or record it again.")
        lost_bytes = sum(scan.lost_bytes for scan in self._scans)
        promised = information.get("message_count")
        lost = f"{promised - whole} of {promised} messages" if promised else f"{lost_bytes} bytes at the end"
        kept = f"{whole} messages over {seconds(last_ns - first_ns):.2f} s are whole"
        self.lost = f"{damaged} is cut short: {kept}, {lost} are lost"
        if not recover:
            raise BagError(f"{self.lost}. Copy or record it again, or open it with recover=True to use what is whole.")


def _find(path: Path) -> Path:
    """Returns the folder with ``metadata.yaml``, or the single storage file."""
    if path.is_file():
        if path.suffix not in _SUFFIXES:
            raise BagError(f"{path} is no bag; give a rosbag2 folder, or a file ending in {' or '.join(_SUFFIXES)}.")
        return path
    if not path.is_dir():
        raise BagError(f"There is no bag at {path}; give a rosbag2 folder, or a .mcap or .db3 file.")
    if (path / "metadata.yaml").exists():
        return path
    files = [file for file in sorted(path.rglob("*")) if file.suffix in _SUFFIXES]
    if len(files) != 1:
        raise BagError(f"{path} has no metadata.yaml and {len(files)} bag files; give one bag folder or one file.")
    return files[0]


def _information(path: Path) -> Mapping[str, Any]:
    """Returns the ``rosbag2_bagfile_information`` of a folder or of a whole MCAP file; empty where there is none."""
    file = path / "metadata.yaml"
    if path.is_dir():
        text = file.read_text(encoding="utf-8", errors="replace")
    elif path.suffix == ".mcap" and is_whole(path):
        text = embedded_metadata(path)
    else:
        return {}
    try:
        data = yaml.safe_load(text) or {}
    except yaml.YAMLError as problem:
        raise BagError(f"{path} has damaged metadata; open the .mcap or .db3 file itself.") from problem
    information = data.get("rosbag2_bagfile_information", data) if isinstance(data, dict) else None
    if not isinstance(information, dict) or (path.is_dir() and "relative_file_paths" not in information):
        raise BagError(f"{file} does not describe a rosbag2; open the .mcap or .db3 file itself.")
    return information


def _files(path: Path, information: Mapping[str, Any]) -> list[Path]:
    if path.is_file():
        return [path]
    files = [path / Path(name).name for name in information["relative_file_paths"]]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise BagError(f"{path} lacks {', '.join(missing)}, which its metadata.yaml names; copy the folder again.")
    return files


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what damaged bytes raise in the libraries into a BagError."""
    try:
        yield
    except _DAMAGE as problem:
        text = " ".join(str(problem).split()).rstrip(".")
        raise BagError(f"{path} cannot be read: {text}. Copy or record it again.") from problem


@contextmanager
def _open(path: Path) -> Iterator[Reader]:
    with _readable(path), Reader(path) as reader:
        yield reader
