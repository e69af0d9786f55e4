"""A robot description proposed from a bag. What no recording can tell is marked, and does not load until filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from dit_policy_ros.data import messages
from dit_policy_ros.data.inspection import Inspection, is_instruction
from dit_policy_ros.data.joint_ranges import JointRange
from dit_policy_ros.data.streams import Stream
from dit_policy_ros.errors import BagError

MARK = "FILL_IN"
"""Stands wherever a person must write a value."""
_SIDE = {
    "left": re.compile(r"left|(?:^|[_/.\-])(?:l|fl|lh)(?=[_/.\-]|$)", re.IGNORECASE),
    "right": re.compile(r"right|(?:^|[_/.\-])(?:r|fr|rh)(?=[_/.\-]|$)", re.IGNORECASE),
}
_GRIPPER = re.compile(r"gripper|finger|hand|jaw", re.IGNORECASE)
_DULL = {"image_raw", "image", "image_rect", "image_rect_color", "image_color", "color", "rgb", "compressed", "camera"}
"""Parts of a topic that do not name its camera."""
_LEAST_RANGE = 0.02
"""A joint that moved less says nothing of its range, [rad]."""
_ARM_SLOTS, _GRIPPER_SLOTS = 10, 5
_AGE_PERIODS = 5.0


@dataclass(frozen=True)
class _Group:
    """Joints that are commanded together."""

    name: str
    topic: str
    """'' where no command topic is known."""
    joints: tuple[str, ...]


def side_of(name: str) -> str:
    """Returns 'left', 'right', or '' where a name says neither or both."""
    sides = [side for side, pattern in _SIDE.items() if pattern.search(name)]
    return sides[0] if len(sides) == 1 else ""


def propose_robot(inspection: Inspection) -> str:
    """Returns the text of a robot YAML; ``load_robot`` takes it once every ``MARK`` is replaced.

    Raises:
        BagError: the bag has no joint states.
    """
    topic = _joint_states_topic(inspection)
    measured = {joint.name: joint for joint in inspection.joints[topic]}
    groups, notes = _groups(inspection, measured)
    commanded = [joint for group in groups for joint in group.joints]
    idle = [name for name in measured if name not in commanded]
    if idle:
        notes.append(f"Measured but not commanded in this bag, and left out: {', '.join(idle)}.")
    others = [other for other in inspection.joints if other != topic and _is_state(inspection, other)]
    notes += [f"Other joint states, not used: {other}." for other in others]
    cameras, camera_notes = _cameras(inspection.streams)
    lines = [
        f"# Proposed from {inspection.bag.path.name}; not a robot description yet. Replace every {MARK}: limits of",
        "# speed and acceleration, and whatever else no recording can tell. Positions are what was seen in the bag,",
        "# not the joints' limits: widen them. Check which arm, slot and controller each joint is given.",
        *(f"# {note}" for note in (*notes, *camera_notes)),
        f"name: {_plain(inspection.metadata.robot) if inspection.metadata.robot else MARK}",
        "",
        *_arms([measured[name] for name in commanded]),
        "cameras:" if cameras else "cameras: {}",
        *cameras,
        "",
        "controllers:",
        *(line for group in groups for line in _controller(group)),
        "",
        f"joint_states: {{topic: {topic}, max_age_s: {_age_s(inspection.streams[topic], 0.2)}}}",
        f"instruction: {{topic: {_instruction_topic(inspection.streams)}}}",
    ]
    return "\n".join(lines) + "\n"


def _is_state(inspection: Inspection, topic: str) -> bool:
    return inspection.streams[topic].msgtype == messages.JOINT_STATE


def _joint_states_topic(inspection: Inspection) -> str:
    topics = [topic for topic in inspection.joints if _is_state(inspection, topic)]
    if not topics:
        present = ", ".join(topic for topic, stream in inspection.streams.items() if stream.count) or "none"
        raise BagError(
            f"{inspection.bag.path} has no joint states ({messages.JOINT_STATE}), so no robot can be proposed from it. "
            f"Topics present: {present}."
        )
    return max(topics, key=lambda topic: len(inspection.joints[topic]))


def _groups(inspection: Inspection, measured: Mapping[str, JointRange]) -> tuple[list[_Group], list[str]]:
    """Returns a group per command topic, or per arm where nothing was commanded, and remarks."""
    groups: list[_Group] = []
    notes: list[str] = []
    taken: set[str] = set()
    topics = [topic for topic in inspection.joints if not _is_state(inspection, topic)]
    # A controller's topic before one that plans for several, such as a policy's chunks.
    for topic in sorted(topics, key=lambda topic: (len(inspection.joints[topic]), topic)):
        joints = tuple(joint.name for joint in inspection.joints[topic])
        foreign = [name for name in joints if name not in measured]
        if foreign:
            notes.append(f"{topic} commands {', '.join(foreign)}, which no joint state has; left out.")
        elif taken & set(joints):
            notes.append(f"{topic} commands joints that another topic commands too; left out.")
        else:
            taken |= set(joints)
            groups.append(_Group(_controller_name(topic), topic, joints))
    if groups:
        return sorted(groups, key=lambda group: (side_of(group.topic) == "right", group.topic)), notes
    for side in ("left", "right"):
        joints = tuple(name for name in measured if (side_of(name) or "right") == side)
        if joints:
            groups.append(_Group(f"{side}_arm_controller", "", joints))
    return groups, [*notes, "Nothing is commanded in this bag; the controllers are guesses."]


def _controller_name(topic: str) -> str:
    return topic.removesuffix("/joint_trajectory").strip("/").replace("/", "_")


def _arms(joints: Sequence[JointRange]) -> Iterator[str]:
    yield "arms:"
    for side in ("left", "right"):
        own = [joint for joint in joints if (side_of(joint.name) or "right") == side]
        if not own:
            continue
        yield f"  {side}:"
        slots = dict(zip((joint.name for joint in own), _slots(side, own), strict=True))
        for joint in own:
            unsure = "" if side_of(joint.name) else "; the name does not tell the arm"
            yield (
                f"    {_plain(joint.name)}: {{slot: {slots[joint.name]}, position: {_position(joint)}, "
                f"velocity: {MARK}, acceleration: {MARK}}}  # moved at up to {joint.speed:.2g} per s{unsure}"
            )
    yield ""


def _slots(side: str, joints: Sequence[JointRange]) -> Iterator[str]:
    arm, gripper = 0, 0
    for joint in joints:
        if _GRIPPER.search(joint.name):
            known = f"{side}_gripper_open" if gripper == 0 else f"{side}_gripper_joint_{gripper}_pos"
            yield known if gripper < _GRIPPER_SLOTS else MARK
            gripper += 1
        else:
            yield f"{side}_arm_joint_{arm}_pos" if arm < _ARM_SLOTS else MARK
            arm += 1


def _position(joint: JointRange) -> str:
    is_share = joint.lower >= -0.05 and joint.upper <= 1.05
    if _GRIPPER.search(joint.name) and is_share and joint.upper > 0.2:
        return "[0.0, 1.0]"
    if not joint.upper - joint.lower >= _LEAST_RANGE:
        return f"[{MARK}, {MARK}]"
    return f"[{joint.lower:.4f}, {joint.upper:.4f}]"


def _cameras(streams: Mapping[str, Stream]) -> tuple[list[str], list[str]]:
    """Returns a line a camera, and remarks on images that are none."""
    lines: dict[str, str] = {}
    notes: list[str] = []
    for topic, stream in streams.items():
        is_compressed = stream.msgtype == messages.COMPRESSED_IMAGE
        if not stream.sizes or (not is_compressed and f"{topic}/compressed" in streams):
            continue
        base = topic.removesuffix("/compressed")
        if "depth" in topic.lower() or any(kind.endswith(("16UC1", "32FC1", "mono16")) for kind, _ in stream.sizes):
            notes.append(f"{topic} carries depth, and is left out.")
        elif is_compressed and base == topic:
            notes.append(f"{topic} is left out: compressed images are expected on <topic>/compressed.")
        else:
            transport = "compressed" if is_compressed else "raw"
            name = _camera_name(base, lines)
            age_s = _age_s(stream, 0.5)
            lines[name] = f"  {name}: {{topic: {base}, transport: {transport}, max_age_s: {age_s}}}"
    return list(lines.values()), notes


def _camera_name(topic: str, taken: Mapping[str, str]) -> str:
    parts = [part for part in topic.strip("/").split("/") if part not in _DULL]
    name = re.sub(r"\W", "_", "_".join(parts)) or "camera"
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique


def _controller(group: _Group) -> Iterator[str]:
    yield f"  {group.name}:"
    yield f"    type: {'joint_trajectory' if group.topic else MARK}"
    if group.topic and group.topic != f"/{group.name}/joint_trajectory":
        yield f"    topic: {group.topic}"
    yield f"    joints: [{', '.join(map(_plain, group.joints))}]"


def _instruction_topic(streams: Mapping[str, Stream]) -> str:
    topics = [t for t, stream in streams.items() if stream.msgtype == messages.STRING and is_instruction(t)]
    return min(topics, key=len) if topics else "/instruction"


def _age_s(stream: Stream, least_s: float) -> float:
    """Several periods of the stream."""
    return round(max(_AGE_PERIODS * stream.period_s, least_s), 2)


def _plain(text: str) -> str:
    """A name as YAML, quoted where it is no plain word."""
    is_word = re.fullmatch(r"[A-Za-z_][\w./\-]*", text) and yaml.safe_load(text) == text
    return text if is_word else json.dumps(text, ensure_ascii=False)
