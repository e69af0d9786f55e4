"""Where the episodes of one bag begin and end: told by its metadata, by a marker topic, or by pauses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.errors import BagError
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.types import nanoseconds

METADATA_KEY = "dit_policy_ros.episodes"
"""Custom data of the bag: a JSON list of [start, stop], log times in [ns], the stop not included."""
MARKER_TYPES = (messages.BOOL, messages.STRING, messages.EMPTY)
_BEGINNINGS, _ENDS = {"start", "begin", "started", "true"}, {"stop", "end", "stopped", "done", "false"}


@dataclass(frozen=True)
class Span:
    """One episode by time of recording."""

    start_ns: int
    stop_ns: int
    """Not included."""


def episode_spans(bag: BagFile, robot: RobotSpec) -> tuple[Span, ...]:
    """Returns the episodes of a bag in their order; one that is the whole bag where nothing tells otherwise.

    Raises:
        BagError: the metadata or a marker cannot be understood, or the markers leave no episode.
    """
    if METADATA_KEY in bag.custom_data:
        return _from_metadata(bag)
    if robot.episode_topic and bag.counts[robot.episode_topic]:
        return _from_markers(bag, robot.episode_topic)
    if robot.episode_gap_s:
        return _from_gaps(bag, robot)
    return (Span(*bag.span_ns),)


def _from_metadata(bag: BagFile) -> tuple[Span, ...]:
    text = bag.custom_data[METADATA_KEY]
    try:
        spans = tuple(Span(int(start_ns), int(stop_ns)) for start_ns, stop_ns in json.loads(text))
    except (ValueError, TypeError) as problem:
        raise BagError(
            f"{bag.path}: {METADATA_KEY} in the metadata is '{text}'; it must be a list of [start, stop] in [ns]."
        ) from problem
    if not spans or any(span.start_ns >= span.stop_ns for span in spans):
        raise BagError(f"{bag.path}: {METADATA_KEY} in the metadata holds no episode, or one that ends as it begins.")
    return spans


def _from_markers(bag: BagFile, topic: str) -> tuple[Span, ...]:
    """A marker without an end reaches to the next beginning, or to the end of the bag."""
    spans: list[Span] = []
    start_ns: int | None = None
    for log_ns, begins in _markers(bag, topic):
        if start_ns is not None and log_ns > start_ns:
            spans.append(Span(start_ns, log_ns))
        start_ns = log_ns if begins else None
    end_ns = bag.span_ns[1]
    if start_ns is not None and end_ns > start_ns:
        spans.append(Span(start_ns, end_ns))
    if not spans:
        raise BagError(
            f"{bag.path}: the markers on {topic} leave no episode; the first that begins one must come first."
        )
    return tuple(spans)


def _markers(bag: BagFile, topic: str) -> Iterator[tuple[int, bool]]:
    """Yields (log time, whether an episode begins)."""
    msgtype = bag.topics[topic]
    if msgtype not in MARKER_TYPES:
        raise BagError(f"{bag.path}: topic {topic} carries {msgtype}; markers are {' or '.join(MARKER_TYPES)}.")
    for _, log_ns, cdr in bag.messages([topic]):
        message = messages.deserialize(cdr, msgtype, topic)
        if msgtype == messages.BOOL:
            yield log_ns, bool(message.data)
        elif msgtype == messages.EMPTY:
            yield log_ns, True
        else:
            word = message.data.strip().lower()
            if word not in _BEGINNINGS | _ENDS:
                allowed = ", ".join(sorted(_BEGINNINGS | _ENDS))
                raise BagError(f"{bag.path}: a marker on {topic} says '{message.data}'; understood are {allowed}.")
            yield log_ns, word in _BEGINNINGS


def _from_gaps(bag: BagFile, robot: RobotSpec) -> tuple[Span, ...]:
    """A pause of the first joint states ends an episode; what other topics send in it belongs to none."""
    limit_ns = nanoseconds(robot.episode_gap_s)
    bag.require(robot.joint_states_topic, "joint states")
    spans: list[Span] = []
    start_ns = last_ns = None
    for _, log_ns, _ in bag.messages([robot.joint_states_topic]):
        if last_ns is not None and log_ns - last_ns > limit_ns:
            spans.append(Span(start_ns, last_ns + 1))
            start_ns = log_ns
        start_ns = log_ns if start_ns is None else start_ns
        last_ns = log_ns
    first_ns, end_ns = bag.span_ns
    spans.append(Span(start_ns, end_ns))
    # What came just before the first joint state, such as a latched instruction, is of the first episode.
    return (Span(min(first_ns, spans[0].start_ns), spans[0].stop_ns), *spans[1:])
