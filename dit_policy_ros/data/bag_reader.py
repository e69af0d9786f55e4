"""Reads one episode from a bag through a robot description. Joints are arrays; images stay on disk until asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.data.commands import COMMAND_TYPES, Command, CommandHistory, read_command, read_pose, targets_at
from dit_policy_ros.data.episode_spans import episode_spans
from dit_policy_ros.data.images import decode_compressed, decode_compressed_depth, decode_depth, decode_image
from dit_policy_ros.data.joint_history import HistoryBuilder, JointHistory
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.errors import BagError, RobotError, one_of
from dit_policy_ros.robot import RobotSpec, pose_slots


@dataclass(frozen=True)
class Episode:
    """One recorded episode. Stamps are the messages' own; where a driver left one unset, the time of recording."""

    robot: RobotSpec
    instruction: str
    """The first one of the bag."""
    instructions: tuple[tuple[int, str], ...]
    """(log time [ns], text) of every instruction."""
    joints: JointHistory
    """Channels in the order of the robot's names."""
    commands: Mapping[str, Sequence[Command]]
    """Controller name to what it was sent, in that order."""
    metadata: EpisodeMetadata
    bag: BagFile

    @property
    def lost(self) -> str:
        """What a damaged bag lacks, in a sentence, as far as it was read; empty for a whole one."""
        return self.bag.lost

    def targets_at(self, times_ns: np.ndarray) -> np.ndarray:
        """Returns commanded positions, (len(times_ns), joints) in the order of the robot's names.

        Raises:
            BagError: a controller was sent nothing.
        """
        targets = np.empty((len(times_ns), len(self.robot.names)))
        for controller in self.robot.controllers:
            columns = [self.robot.names.index(name) for name in controller.joints]
            targets[:, columns] = targets_at(times_ns, self.commands[controller.name], controller.name)
        return targets

    def image_stamps_ns(self, camera: str) -> np.ndarray:
        """Returns the stamps of a camera's images in the order of ``frames``, (N,) int64, without decoding any.

        Raises:
            BagError: no such camera, or no images of it.
        """
        return np.array([stamp_ns for stamp_ns, _ in self.encoded_frames(camera)], dtype=np.int64)

    def frames(self, camera: str) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (stamp [ns], (H, W, 3) uint8 RGB) one by one; memory does not grow with the bag.

        Raises:
            BagError: no such camera, no images of it, or one that cannot be decoded.
        """
        for stamp_ns, decode in self.encoded_frames(camera):
            yield stamp_ns, decode()

    def encoded_frames(self, camera: str) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """Yields (stamp [ns], function that decodes) one by one, for a reader that needs only some of the images.

        Raises:
            BagError: no such camera, no images of it; the function, if it cannot be decoded.
        """
        topic, msgtype = self.image_topic(camera)
        decode = partial(decode_message, msgtype=msgtype, where=f"{self.bag.path}, topic {topic}")
        for _, log_ns, cdr in self.bag.messages([topic]):
            yield messages.peek_stamp_ns(cdr) or log_ns, partial(decode, cdr)

    def has_depth(self, camera: str) -> bool:
        """Returns whether the bag has depth images of a camera."""
        topic = self.robot.cameras[camera].depth_topic
        return bool(topic and (self.bag.counts[topic] or self.bag.counts[f"{topic}/compressedDepth"]))

    def encoded_depths(self, camera: str) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """Yields (stamp [ns], function that decodes to (H, W) float32 [m]) one by one.

        Raises:
            BagError: no such camera, no depth images of it; the function, if one cannot be decoded.
        """
        if camera not in self.robot.cameras:
            raise BagError(one_of("Camera", camera, self.robot.cameras))
        raw = self.robot.cameras[camera].depth_topic
        if not raw:
            raise BagError(f"Camera {camera} has no depth topic in the robot YAML; give it as 'depth: TOPIC'.")
        packed = f"{raw}/compressedDepth"
        topic = packed if self.bag.counts[packed] and not self.bag.counts[raw] else raw
        self.bag.require(topic, f"depth images of camera {camera}")
        _check_type(self.bag, topic, (messages.COMPRESSED_IMAGE, messages.IMAGE))
        decode = partial(_decode_depth, msgtype=self.bag.topics[topic], where=f"{self.bag.path}, topic {topic}")
        for _, log_ns, cdr in self.bag.messages([topic]):
            yield messages.peek_stamp_ns(cdr) or log_ns, partial(decode, cdr)

    def image_topic(self, camera: str) -> tuple[str, str]:
        """Returns topic and message type of a camera's images, in the transport that was recorded.

        Raises:
            BagError: no such camera, no images of it, or a topic of another type.
        """
        cameras = self.robot.cameras
        if camera not in cameras:
            raise BagError(one_of("Camera", camera, cameras))
        raw, compressed = cameras[camera].topic, f"{cameras[camera].topic}/compressed"
        first, second = (compressed, raw) if cameras[camera].transport == "compressed" else (raw, compressed)
        topic = first if self.bag.counts[first] or not self.bag.counts[second] else second
        self.bag.require(topic, f"images of camera {camera}")
        _check_type(self.bag, topic, (messages.COMPRESSED_IMAGE, messages.IMAGE))
        return topic, self.bag.topics[topic]


def decode_message(cdr: bytes, msgtype: str, where: str) -> np.ndarray:
    """Returns the image of an Image or CompressedImage, (H, W, 3) uint8 RGB.

    Raises:
        BagError: it cannot be decoded.
    """
    try:
        if msgtype == messages.COMPRESSED_IMAGE:
            image_format, data = messages.peek_compressed_image(cdr, where)
            return decode_compressed(data, image_format)
        message = messages.deserialize(cdr, msgtype, where)
        return decode_image(message.encoding, message.height, message.width, message.step, message.data)
    except RobotError as problem:
        raise BagError(f"{where}: {problem}") from problem


def _decode_depth(cdr: bytes, msgtype: str, where: str) -> np.ndarray:
    message = messages.deserialize(cdr, msgtype, where)
    try:
        if msgtype == messages.COMPRESSED_IMAGE:
            return decode_compressed_depth(message.data, message.format)
        big = bool(message.is_bigendian)
        return decode_depth(message.encoding, message.height, message.width, message.step, message.data, big)
    except RobotError as problem:
        raise BagError(f"{where}: {problem}") from problem


def open_episode(path: str | Path, robot: RobotSpec, recover: bool = False, index: int | None = None) -> Episode:
    """Opens a bag, or one of the episodes in it.

    Args:
        path: rosbag2 folder, or a single ``.mcap`` or ``.db3`` file.
        robot: tells which topics and joints matter.
        recover: read a file that was cut short or is damaged as far as it is whole, once from its beginning to its end
            to know how far; ``Episode.lost`` says what is missing.
        index: of the episode, from 0; None where the bag must be a single one.

    Raises:
        BagError: there is no bag, it is damaged, it lacks joint states or an instruction, its joints are not the
            robot's, a value is not finite, or it has several episodes and none was chosen.
    """
    bag = BagFile(path, recover)
    if recover:
        bag.check()
    metadata = EpisodeMetadata.from_custom_data(bag.custom_data)
    spans = episode_spans(bag, robot)
    if index is None and len(spans) > 1:
        raise BagError(f"{bag.path} holds {len(spans)} episodes; choose one by its number, 0 to {len(spans) - 1}.")
    if index is not None and not 0 <= index < len(spans):
        raise BagError(f"{bag.path} has no episode {index}; it holds 0 to {len(spans) - 1}.")
    instructions = _instructions(bag, robot)
    if len(spans) > 1:
        span = spans[index]
        bag = bag.cut(span.start_ns, span.stop_ns)
        instructions = _within(instructions, span.start_ns, span.stop_ns)
    joints, commands = _read(bag, robot)
    return Episode(
        robot=robot,
        instruction=_first_instruction(instructions, metadata, bag, robot),
        instructions=tuple(instructions),
        joints=joints,
        commands=commands,
        metadata=metadata,
        bag=bag,
    )


def episodes_of(path: str | Path, robot: RobotSpec, recover: bool = False) -> Iterator[Episode]:
    """Yields every episode of a bag, one after the other.

    Raises:
        BagError: see ``open_episode``.
    """
    count = len(episode_spans(BagFile(path, recover), robot))
    for index in range(count):
        yield open_episode(path, robot, recover, index)


def _read(bag: BagFile, robot: RobotSpec) -> tuple[JointHistory, dict[str, CommandHistory]]:
    """Reads joint states, poses and commands in one pass."""
    bag.require(robot.joint_states_topic, "joint states")
    controllers = {controller.topic: controller for controller in robot.controllers}
    arms = {topic: arm for arm, topic in robot.pose_topics.items()}
    slots = {joint.slot: joint.name for joint in robot.joints}
    channels = {arm: tuple(slots[slot] for slot in pose_slots(arm)) for arm in arms.values()}
    ranks = {topic: rank for rank, topic in enumerate((*robot.states_topics, *arms))}
    expected = dict.fromkeys(robot.states_topics, messages.JOINT_STATE) | dict.fromkeys(arms, messages.POSE)
    expected |= {topic: COMMAND_TYPES[c.type] for topic, c in controllers.items() if c.type in COMMAND_TYPES}
    for topic in bag.topics.keys() & expected.keys():
        _check_type(bag, topic, (expected[topic],))
    history = HistoryBuilder(robot.names, f"{bag.path}, topic {', '.join(ranks)}")
    commands = {controller.name: CommandHistory(controller.joints) for controller in robot.controllers}
    for topic, log_ns, cdr in bag.messages(expected.keys()):
        try:
            message = messages.deserialize(cdr, bag.topics[topic], topic)
        except BagError as problem:
            bag.lose(topic, log_ns, problem)
            continue
        if topic in controllers:
            controller = controllers[topic]
            commands[controller.name].add(read_command(log_ns, message, controller, f"{bag.path}, topic {topic}"))
            continue
        time_ns = messages.stamp_ns(message) or log_ns
        if topic in arms:
            values = read_pose(message, f"{bag.path}, topic {topic}")
            history.add(time_ns, channels[arms[topic]], values, np.empty(0), ranks[topic])
        else:
            history.add(time_ns, message.name, message.position, message.velocity, ranks[topic])
    return history.build(), commands


def _instructions(bag: BagFile, robot: RobotSpec) -> list[tuple[int, str]]:
    """Returns (log time [ns], text) of every instruction."""
    topic = robot.instruction_topic
    if topic in bag.topics:
        _check_type(bag, topic, (messages.STRING,))
    texts = []
    for _, log_ns, cdr in bag.messages([topic]):
        try:
            texts.append((log_ns, messages.deserialize(cdr, messages.STRING, topic).data.strip()))
        except BagError as problem:
            bag.lose(topic, log_ns, problem)
    return [(log_ns, text) for log_ns, text in texts if text]


def _within(instructions: list[tuple[int, str]], start_ns: int, stop_ns: int) -> list[tuple[int, str]]:
    """Keeps those of an episode, and the one that holds as it begins."""
    before = [text for log_ns, text in instructions if log_ns < start_ns]
    return [(start_ns, text) for text in before[-1:]] + [
        (log_ns, text) for log_ns, text in instructions if start_ns <= log_ns < stop_ns
    ]


def _first_instruction(
    instructions: list[tuple[int, str]], metadata: EpisodeMetadata, bag: BagFile, robot: RobotSpec
) -> str:
    text = instructions[0][1] if instructions else metadata.instruction
    if not text:
        present = ", ".join(sorted(topic for topic in bag.counts if bag.counts[topic]))
        raise BagError(
            f"{bag.path} has no instruction: nothing on {robot.instruction_topic} and none in its metadata. "
            f"Record that topic, or name another one in the robot YAML. Topics present: {present}."
            f"{f' {bag.lost}.' if bag.lost else ''}"
        )
    return text


def _check_type(bag: BagFile, topic: str, allowed: tuple[str, ...]) -> None:
    if bag.topics[topic] not in allowed:
        raise BagError(f"{bag.path}: topic {topic} carries {bag.topics[topic]}; it must be {' or '.join(allowed)}.")
