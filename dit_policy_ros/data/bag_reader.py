"""Reads one episode from a bag through a robot description. Joints are arrays; images stay on disk until asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.data.commands import Command, targets_at
from dit_policy_ros.data.images import decode_compressed, decode_image
from dit_policy_ros.data.joint_history import HistoryBuilder, JointHistory
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.errors import BagError, RobotError, one_of
from dit_policy_ros.robot import Controller, RobotSpec
from dit_policy_ros.types import Trajectory


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
    commands: Mapping[str, tuple[Command, ...]]
    """Controller name to what it was sent, in that order."""
    metadata: EpisodeMetadata
    lost: str
    """What a damaged bag lacks, in a sentence; empty for a whole one."""
    bag: BagFile

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
        topic = self._image_topic(camera)
        decode = partial(decode_message, msgtype=self.bag.topics[topic], where=f"{self.bag.path}, topic {topic}")
        for _, log_ns, cdr in self.bag.messages([topic]):
            yield messages.peek_stamp_ns(cdr) or log_ns, partial(decode, cdr)

    def _image_topic(self, camera: str) -> str:
        cameras = self.robot.cameras
        if camera not in cameras:
            raise BagError(one_of("Camera", camera, cameras))
        raw, compressed = cameras[camera].topic, f"{cameras[camera].topic}/compressed"
        first, second = (compressed, raw) if cameras[camera].transport == "compressed" else (raw, compressed)
        topic = first if self.bag.counts[first] or not self.bag.counts[second] else second
        self.bag.require(topic, f"images of camera {camera}")
        _check_type(self.bag, topic, (messages.COMPRESSED_IMAGE, messages.IMAGE))
        return topic


def decode_message(cdr: bytes, msgtype: str, where: str) -> np.ndarray:
    """Returns the image of an Image or CompressedImage, (H, W, 3) uint8 RGB.

    Raises:
        BagError: it cannot be decoded.
    """
    message = messages.deserialize(cdr, msgtype, where)
    try:
        if msgtype == messages.COMPRESSED_IMAGE:
            return decode_compressed(message.data, message.format)
        return decode_image(message.encoding, message.height, message.width, message.step, message.data)
    except RobotError as problem:
        raise BagError(f"{where}: {problem}") from problem


def open_episode(path: str | Path, robot: RobotSpec, recover: bool = False) -> Episode:
    """Opens a bag as one episode.

    Args:
        path: rosbag2 folder, or a single ``.mcap`` or ``.db3`` file.
        robot: tells which topics and joints matter.
        recover: read a file that was cut short as far as it is whole; ``Episode.lost`` says what is missing.

    Raises:
        BagError: there is no bag, it is damaged, it lacks joint states or an instruction, its joints are not the
            robot's, or a value is not finite.
    """
    bag = BagFile(path, recover)
    metadata = EpisodeMetadata.from_custom_data(bag.custom_data)
    joints_topic = bag.require(robot.joint_states_topic, "joint states")
    _check_type(bag, joints_topic, (messages.JOINT_STATE,))
    controllers = {controller.topic: controller for controller in robot.controllers}
    history = HistoryBuilder(robot.names, f"{bag.path}, topic {joints_topic}")
    commands: dict[str, list[Command]] = {controller.name: [] for controller in robot.controllers}
    instructions: list[tuple[int, str]] = []
    expected = dict.fromkeys(controllers, messages.JOINT_TRAJECTORY) | {robot.instruction_topic: messages.STRING}
    for topic in bag.topics.keys() & expected.keys():
        _check_type(bag, topic, (expected[topic],))
    for topic, log_ns, cdr in bag.messages({joints_topic, robot.instruction_topic, *controllers}):
        message = messages.deserialize(cdr, bag.topics[topic], topic)
        if topic == joints_topic:
            history.add(messages.stamp_ns(message) or log_ns, message.name, message.position, message.velocity)
        elif topic in controllers:
            controller = controllers[topic]
            commands[controller.name].append(_command(log_ns, message, controller, f"{bag.path}, topic {topic}"))
        elif message.data.strip():
            instructions.append((log_ns, message.data.strip()))
    return Episode(
        robot=robot,
        instruction=_first_instruction(instructions, metadata, bag, robot),
        instructions=tuple(instructions),
        joints=history.build(),
        commands={name: tuple(sent) for name, sent in commands.items()},
        metadata=metadata,
        lost=bag.lost,
        bag=bag,
    )


def _first_instruction(
    instructions: list[tuple[int, str]], metadata: EpisodeMetadata, bag: BagFile, robot: RobotSpec
) -> str:
    text = instructions[0][1] if instructions else metadata.instruction
    if not text:
        present = ", ".join(sorted(topic for topic in bag.counts if bag.counts[topic]))
        raise BagError(
            f"{bag.path} has no instruction: nothing on {robot.instruction_topic} and none in its metadata. "
            f"Record that topic, or name another one in the robot YAML. Topics present: {present}."
        )
    return text


def _command(log_ns: int, message: Any, controller: Controller, where: str) -> Command:
    points = message.points
    if not points:
        raise BagError(f"{where}: a trajectory has no points.")
    if set(message.joint_names) != set(controller.joints) or len(message.joint_names) != len(controller.joints):
        raise BagError(
            f"{where}: a trajectory names {', '.join(message.joint_names)}, but {controller.name} moves "
            f"{', '.join(controller.joints)}. Check the controllers in the robot YAML."
        )
    if any(len(point.positions) != len(message.joint_names) for point in points):
        raise BagError(f"{where}: a trajectory point lacks positions; only position trajectories are supported.")
    order = [message.joint_names.index(name) for name in controller.joints]
    positions = np.array([point.positions for point in points])[:, order]
    if not np.isfinite(positions).all():
        raise BagError(f"{where}: a trajectory holds a value that is not finite; leave this episode out.")
    with_velocities = all(len(point.velocities) == len(order) for point in points)
    velocities = np.array([point.velocities for point in points])[:, order] if with_velocities else None
    offsets_ns = np.array([messages.duration_ns(point.time_from_start) for point in points], dtype=np.int64)
    if (np.diff(offsets_ns) <= 0).any():
        raise BagError(f"{where}: the times of a trajectory's points do not increase.")
    # A controller starts a trajectory without a stamp when it arrives.
    start_ns = messages.stamp_ns(message) or log_ns
    return Command(log_ns, Trajectory(controller.joints, start_ns + offsets_ns, positions, velocities))


def _check_type(bag: BagFile, topic: str, allowed: tuple[str, ...]) -> None:
    if bag.topics[topic] not in allowed:
        raise BagError(f"{bag.path}: topic {topic} carries {bag.topics[topic]}; it must be {' or '.join(allowed)}.")
