"""What is in a bag, read once from its beginning to its end, with or without a robot description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.data.episode_spans import episode_spans
from dit_policy_ros.data.findings import Finding, find_in_streams, find_with_robot
from dit_policy_ros.data.image_size import image_size
from dit_policy_ros.data.joint_ranges import JointRange, RangeBuilder
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.data.streams import Stream, StreamBuilder
from dit_policy_ros.errors import BagError
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.types import seconds


@dataclass(frozen=True)
class Inspection:
    """A bag, summarised."""

    bag: BagFile
    metadata: EpisodeMetadata
    start_ns: int
    """First time of recording; 0 for a bag without messages."""
    end_ns: int
    streams: Mapping[str, Stream]
    """Topic to its stream, sorted; topics without messages too."""
    joints: Mapping[str, tuple[JointRange, ...]]
    """Topic of joint states or trajectories to what its joints did."""
    instructions: tuple[str, ...]
    """Different texts on topics of type String whose name speaks of instructions, at most 20."""
    findings: tuple[Finding, ...] = field(default=())
    """Worst first."""

    @property
    def duration_s(self) -> float:
        """From the first to the last message, by time of recording."""
        return seconds(self.end_ns - self.start_ns)


def inspect_bag(path: str | Path, robot: RobotSpec | None = None) -> Inspection:
    """Reads a whole bag, a damaged one as far as it is whole, in memory that its images do not fill.

    Args:
        path: rosbag2 folder, or a single ``.mcap`` or ``.db3`` file.
        robot: description to hold it against.

    Raises:
        BagError: there is no bag, or nothing of it can be read.
    """
    bag = BagFile(path, recover=True)
    reader = _Reader(bag, robot)
    stopped = reader.read()
    spans = [stream.span_ns for stream in reader.streams.values()]
    start_ns, end_ns = (min(a for a, _ in spans), max(b for _, b in spans)) if spans else (0, 0)
    streams = {topic: builder.build(start_ns, end_ns) for topic, builder in reader.streams.items()}
    for topic in bag.topics.keys() - streams.keys():
        streams[topic] = StreamBuilder(topic, bag.topics[topic], False).build(start_ns, end_ns)
    inspection = Inspection(
        bag=bag,
        metadata=EpisodeMetadata.from_custom_data(bag.custom_data),
        start_ns=start_ns,
        end_ns=end_ns,
        streams=dict(sorted(streams.items())),
        joints={topic: builder.build() for topic, builder in sorted(reader.joints.items())},
        instructions=tuple(reader.instructions),
    )
    findings = [Finding("error", "file", text) for text in (bag.lost, stopped) if text]
    findings += [
        Finding("error", topic, f"{n} messages are no whole {bag.topics[topic]}") for topic, n in reader.broken
    ]
    malformed = ((topic, builder.malformed) for topic, builder in sorted(reader.joints.items()))
    text = "messages whose joint names and positions do not fit together"
    findings += [Finding("error", topic, f"{count} {text}") for topic, count in malformed if count]
    findings += find_in_streams(inspection.streams, inspection.joints)
    if robot is not None:
        findings += find_with_robot(inspection.streams, inspection.joints, inspection.metadata, robot)
        findings += _episodes(bag, robot, start_ns)
    order = ("error", "warning", "note")
    return replace(inspection, findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))))


def _episodes(bag: BagFile, robot: RobotSpec, start_ns: int) -> list[Finding]:
    try:
        spans = episode_spans(bag, robot)
    except BagError as problem:
        return [Finding("error", "episodes", str(problem))]
    if len(spans) < 2:
        return []
    times = ", ".join(f"{seconds(s.start_ns - start_ns):.2f} s to {seconds(s.stop_ns - start_ns):.2f} s" for s in spans)
    return [Finding("note", "episodes", f"the bag holds {len(spans)} episodes: {times}")]


def is_instruction(topic: str) -> bool:
    """Returns whether a topic's name speaks of instructions."""
    return any(word in topic.lower() for word in ("instruction", "language", "prompt", "task"))


class _Reader:
    """One pass over all messages."""

    def __init__(self, bag: BagFile, robot: RobotSpec | None) -> None:
        self.bag = bag
        self.streams: dict[str, StreamBuilder] = {}
        self.joints: dict[str, RangeBuilder] = {}
        self.instructions: dict[str, None] = {}
        self._broken: dict[str, int] = {}
        self._instruction_topic = robot.instruction_topic if robot else None

    @property
    def broken(self) -> list[tuple[str, int]]:
        """(topic, messages that could not be read)."""
        return sorted(self._broken.items())

    def read(self) -> str:
        """Reads to the end; returns '' or why it stopped before."""
        try:
            for topic, log_ns, cdr in self.bag.messages(self.bag.topics.keys()):
                self._add(topic, log_ns, cdr)
        except BagError as problem:
            if not self.streams:
                raise
            return f"Reading stopped: {problem}"
        return ""

    def _add(self, topic: str, log_ns: int, cdr: bytes) -> None:
        msgtype = self.bag.topics[topic]
        stream = self.streams.get(topic)
        if stream is None:
            stream = self.streams[topic] = StreamBuilder(topic, msgtype, messages.has_header(msgtype))
        stamp_ns = messages.peek_stamp_ns(cdr) if stream.has_header and len(cdr) >= 12 else 0
        stream.add(log_ns, stamp_ns)
        try:
            self._look(stream, stamp_ns or log_ns, cdr)
        except BagError:
            self._broken[topic] = self._broken.get(topic, 0) + 1

    def _look(self, stream: StreamBuilder, time_ns: int, cdr: bytes) -> None:
        topic, msgtype = stream.topic, stream.msgtype
        if msgtype == messages.JOINT_STATE:
            message = messages.deserialize(cdr, msgtype, topic)
            self.joints.setdefault(topic, RangeBuilder()).add(time_ns, message.name, message.position)
        elif msgtype == messages.JOINT_TRAJECTORY:
            message = messages.deserialize(cdr, msgtype, topic)
            rows = [point.positions for point in message.points]
            if rows and len({len(row) for row in rows}) == 1:
                builder = self.joints.setdefault(topic, RangeBuilder())
                builder.add(time_ns, message.joint_names, np.array(rows))
        elif msgtype == messages.IMAGE:
            message = messages.deserialize(cdr, msgtype, topic)
            stream.sizes[f"{message.width}x{message.height} {message.encoding}"] += 1
        elif msgtype == messages.COMPRESSED_IMAGE:
            message = messages.deserialize(cdr, msgtype, topic)
            if not message.format.startswith("safetensors"):  # A context travels as CompressedImage.
                stream.sizes[_kind(message)] += 1
        elif msgtype == messages.STRING and (topic == self._instruction_topic or is_instruction(topic)):
            text = messages.deserialize(cdr, msgtype, topic).data.strip()
            if text and len(self.instructions) < 20:
                self.instructions[text] = None


def _kind(message: Any) -> str:
    size = image_size(message.data[:65536].tobytes())
    words = message.format.split()
    return f"{'x'.join(map(str, size)) if size else 'unknown size'} {words[-1] if words else ''}".strip()
