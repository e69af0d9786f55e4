"""What is remarkable about a bag's streams, alone and against a robot description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dit_policy_ros.data import messages
from dit_policy_ros.data.commands import COMMAND_TYPES
from dit_policy_ros.data.joint_ranges import JointRange
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.data.streams import Stream
from dit_policy_ros.robot import RobotSpec, pose_slots
from dit_policy_ros.types import seconds

SKEW_LIMIT_S = 0.1
"""Streams whose clocks differ by more do not belong together."""


@dataclass(frozen=True)
class Finding:
    """One remark."""

    severity: str
    """'error': the bag cannot be used as it is; 'warning': look at it; 'note'."""
    subject: str
    """Topic, joint or camera."""
    text: str


def find_in_streams(streams: Mapping[str, Stream], joints: Mapping[str, tuple[JointRange, ...]]) -> Iterator[Finding]:
    """Yields what no robot description is needed for."""
    if not any(stream.count for stream in streams.values()):
        yield Finding("error", "bag", "there is no message")
    for topic, stream in streams.items():
        yield from _stream(topic, stream)
    yield from _skews(streams)
    for topic, ranges in joints.items():
        for joint in ranges:
            if joint.not_finite:
                text = f"{joint.not_finite} values of {joint.name} are not finite; the sensor or driver was at fault"
                yield Finding("error", topic, text)


def find_with_robot(
    streams: Mapping[str, Stream],
    joints: Mapping[str, tuple[JointRange, ...]],
    metadata: EpisodeMetadata,
    robot: RobotSpec,
) -> Iterator[Finding]:
    """Yields what the bag lacks of a robot, or has beyond its limits."""
    for topic in robot.states_topics:
        yield from _topic(streams, topic, messages.JOINT_STATE, "joint states", "error")
    for arm, topic in robot.pose_topics.items():
        yield from _topic(streams, topic, messages.POSE, f"end-effector pose of the {arm} arm", "error")
    for controller in robot.controllers:
        what = f"commands of {controller.name}"
        if controller.type in COMMAND_TYPES:
            yield from _topic(streams, controller.topic, COMMAND_TYPES[controller.type], what, "error")
        else:
            text = f"is of type {controller.type}, whose commands are not read from bags"
            yield Finding("note", controller.name, text)
    severity = "note" if metadata.instruction else "error"
    what = "instructions; the metadata has one" if metadata.instruction else "instructions, and none in the metadata"
    yield from _topic(streams, robot.instruction_topic, messages.STRING, what, severity)
    yield from _cameras(streams, robot)
    for topic in (*robot.states_topics, *robot.pose_topics.values()):
        stream = streams.get(topic)
        if stream and stream.longest_s > robot.joint_states_max_age_s:
            text = f"{stream.longest_s:.3f} s without joint states; the executor stops after"
            yield Finding("warning", stream.topic, f"{text} {robot.joint_states_max_age_s:g} s")
    yield from _ranges(joints, robot)
    if metadata.robot and metadata.robot != robot.name:
        yield Finding("warning", "bag", f"was recorded with robot '{metadata.robot}', not '{robot.name}'")


def _stream(topic: str, stream: Stream) -> Iterator[Finding]:
    if not stream.count:
        yield Finding("note", topic, "is announced, but has no message")
        return
    if stream.msgtype not in messages.typestore().fielddefs:
        yield Finding("note", topic, f"has type {stream.msgtype}, which is not known here; it is counted only")
    if stream.gaps:
        gap = stream.gaps[0]
        count = f"{stream.gap_count} gaps" if stream.gap_count > 1 else "1 gap"
        text = f"{count}, the longest {seconds(gap.duration_ns):.3f} s at a period of {stream.period_s:.3f} s"
        yield Finding("warning", topic, text)
    if stream.dropped:
        share = stream.dropped / (stream.dropped + stream.count)
        yield Finding("warning", topic, f"about {stream.dropped} messages were dropped ({share:.1%})")
    for count, text in (
        (stream.unstamped if stream.is_sensor else 0, "have no header stamp; the time of recording stands in for it"),
        (stream.backwards, "are stamped earlier than the one before"),
        (stream.duplicates if stream.stamped else 0, "have the stamp of the one before"),
    ):
        if count:
            yield Finding("warning", topic, f"{count} messages {text}")
    if len(stream.sizes) > 1:
        kinds = ", ".join(f"{kind.strip()} ({count})" for kind, count in stream.sizes)
        yield Finding("warning", topic, f"the images are not of one kind: {kinds}")


def _skews(streams: Mapping[str, Stream]) -> Iterator[Finding]:
    known = {topic: stream.skew for topic, stream in streams.items() if stream.is_sensor and stream.skew}
    for topic, skew in known.items():
        if skew.median_s < 0.0:
            text = f"is stamped {-skew.median_s:.3f} s later than it was recorded (median); the clocks differ"
            yield Finding("warning", topic, text)
    if len(known) < 2:
        return
    first = min(known, key=lambda topic: known[topic].median_s)
    last = max(known, key=lambda topic: known[topic].median_s)
    apart_s = known[last].median_s - known[first].median_s
    if apart_s > SKEW_LIMIT_S:
        text = f"comes {apart_s:.3f} s later after its stamp than {first} does; compare the clocks of the two drivers"
        yield Finding("warning", last, text)


def _topic(streams: Mapping[str, Stream], topic: str, msgtype: str, what: str, severity: str) -> Iterator[Finding]:
    stream = streams.get(topic)
    if stream is None or not stream.count:
        yield Finding(severity, topic, f"is missing ({what})")
    elif stream.msgtype != msgtype:
        yield Finding("error", topic, f"carries {stream.msgtype}; it must be {msgtype} ({what})")


def _cameras(streams: Mapping[str, Stream], robot: RobotSpec) -> Iterator[Finding]:
    for camera in robot.cameras.values():
        raw, compressed = (streams.get(topic) for topic in (camera.topic, f"{camera.topic}/compressed"))
        wanted, other = (compressed, raw) if camera.transport == "compressed" else (raw, compressed)
        stream = wanted if wanted and wanted.count else other
        if stream is None or not stream.count:
            yield Finding("error", camera.topic, f"is missing, raw and compressed (camera {camera.name})")
            continue
        allowed = (messages.IMAGE, messages.COMPRESSED_IMAGE)
        if stream.msgtype not in allowed:
            text = f"carries {stream.msgtype}; it must be {' or '.join(allowed)} (camera {camera.name})"
            yield Finding("error", stream.topic, text)
        elif stream is not wanted:
            text = f"stands in for the {camera.transport} images of camera {camera.name}, which were not recorded"
            yield Finding("note", stream.topic, text)
        if stream.longest_s > camera.max_age_s:
            text = f"{stream.longest_s:.3f} s without an image of camera {camera.name}"
            yield Finding("warning", stream.topic, f"{text}; older than {camera.max_age_s:g} s is not used")
        depth = camera.depth_topic
        if depth and not any(streams[t].count for t in (depth, f"{depth}/compressedDepth") if t in streams):
            yield Finding("warning", depth, f"is missing, raw and compressed (depth of camera {camera.name})")


def _ranges(joints: Mapping[str, tuple[JointRange, ...]], robot: RobotSpec) -> Iterator[Finding]:
    measured = {joint.name for topic in robot.states_topics for joint in joints.get(topic, ())}
    slots = {joint.slot: joint.name for joint in robot.joints}
    posed = {slots[slot] for arm in robot.pose_topics for slot in pose_slots(arm)}
    missing = [name for name in robot.names if name not in measured | posed]
    if measured and missing:
        named = dict.fromkeys(joint.name for topic in robot.states_topics for joint in joints.get(topic, ()))
        text = f"lacks {', '.join(missing)}; it names {', '.join(named)}"
        yield Finding("error", robot.joint_states_topic, text)
    for controller in robot.controllers:
        sent = {joint.name for joint in joints.get(controller.topic, ())}
        if sent and sent != set(controller.joints):
            text = f"commands {', '.join(sorted(sent))}, but {controller.name} has {', '.join(controller.joints)}"
            yield Finding("error", controller.topic, text)
    for topic in (*robot.states_topics, *(controller.topic for controller in robot.controllers)):
        found = {joint.name: joint for joint in joints.get(topic, ())}
        for joint in robot.joints:
            seen = found.get(joint.name)
            if seen is None:
                continue
            below, above = joint.lower - seen.lower, seen.upper - joint.upper
            slack = 1e-3 * (joint.upper - joint.lower)
            if max(below, above) > slack:
                text = f"{joint.name} is in [{seen.lower:.4g}, {seen.upper:.4g}], beyond its limits"
                yield Finding("warning", topic, f"{text} [{joint.lower:.4g}, {joint.upper:.4g}]")
            if seen.speed > joint.velocity:
                text = f"{joint.name} moves at up to {seen.speed:.3g} per second, its limit is {joint.velocity:g}"
                yield Finding("note", topic, text)
