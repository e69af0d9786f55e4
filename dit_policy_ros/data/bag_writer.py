"""Writes one episode as a rosbag2 MCAP with the topics and types of the live graph. Needs no ROS.

While an episode is written it lies in ``<name>.writing/``, without index and ``metadata.yaml``. Leaving the ``with``
block in good order completes it and renames it to ``<name>/`` in one step, so a folder of that name is always whole.
After an exception or a crash the ``.writing`` folder stays, which ``open_episode`` can recover; writing the same
episode again replaces it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from dit_policy_ros import __version__
from dit_policy_ros.data import messages
from dit_policy_ros.data.images import encode_jpeg
from dit_policy_ros.data.metadata import UNKNOWN, EpisodeMetadata
from dit_policy_ros.errors import BagError, one_of
from dit_policy_ros.robot import Camera, RobotSpec
from dit_policy_ros.types import Observation, Trajectory

WRITING_SUFFIX = ".writing"
CLOCK_TOPIC = "/clock"
_FOREVER = QosTime(2147483647, 4294967295)


def _qos(durability: QosDurability, depth: int) -> Qos:
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE,
        durability,
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        False,
    )


VOLATILE = _qos(QosDurability.VOLATILE, depth=10)
LATCHED = _qos(QosDurability.TRANSIENT_LOCAL, depth=1)


class EpisodeWriter:
    """Context manager that writes one bag. Equal calls give equal bytes. Not for several threads at once.

    Every method takes instants on the ROS clock in [ns]; a message's log time is the instant it is given.
    """

    def __init__(self, path: str | Path, robot: RobotSpec, metadata: EpisodeMetadata = UNKNOWN):
        """Prepares a bag.

        Args:
            path: folder to make; its name becomes the name of the MCAP file in it.
            robot: gives the topics.
            metadata: what is known of the episode; robot and package version are filled in.

        Raises:
            BagError: the folder exists.
        """
        self._path = Path(path)
        self._temporary = self._path.with_name(self._path.name + WRITING_SUFFIX)
        self._robot = robot
        self.metadata = replace(metadata, robot=robot.name, package_version=__version__)
        """Replace it before the end of the episode to add what is known only then, such as the outcome."""
        self._connections: dict[str, Connection] = {}
        self._discarded = False
        self._refuse_existing()

    def __enter__(self) -> EpisodeWriter:
        if self._temporary.exists():
            shutil.rmtree(self._temporary)
        self._writer = Writer(self._temporary / self._path.name, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._discarded:
            return
        if kind is not None:
            self._writer.abort()
            return
        for key, value in self.metadata.to_custom_data().items():
            self._writer.set_custom_data(key, value)
        self._writer.close()
        self._refuse_existing()
        os.rename(self._temporary / self._path.name, self._path)
        self._temporary.rmdir()

    def discard(self) -> None:
        """Drops the episode; nothing of it stays on disk. No method but the end of ``with`` may follow."""
        self._discarded = True
        self._writer.abort()
        shutil.rmtree(self._temporary)

    def observation(self, observation: Observation) -> None:
        """Writes joint states, and the images there are, each with its own stamp and the camera's transport."""
        names = tuple(observation.positions)
        velocities = [observation.velocities[name] for name in names] if observation.velocities else ()
        positions = np.array([observation.positions[name] for name in names])
        self.joint_state(observation.stamp_ns, names, positions, np.array(velocities))
        for camera, rgb in observation.images.items():
            stamp_ns = observation.image_stamps_ns.get(camera, observation.stamp_ns)
            if self._camera(camera).transport == "compressed":
                self.compressed_image(camera, stamp_ns, encode_jpeg(rgb))
            else:
                self.raw_image(camera, stamp_ns, rgb)

    def compressed_image(self, camera: str, stamp_ns: int, data: bytes, image_format: str = "jpeg") -> None:
        """Writes the bytes of a JPEG or PNG file as CompressedImage.

        Raises:
            BagError: the robot has no such camera.
        """
        message = messages.compressed_image(stamp_ns, camera, data, image_format)
        self._write(f"{self._camera(camera).topic}/compressed", messages.COMPRESSED_IMAGE, stamp_ns, message)

    def raw_image(self, camera: str, stamp_ns: int, rgb: np.ndarray) -> None:
        """Writes (H, W, 3) uint8 RGB as Image.

        Raises:
            BagError: the robot has no such camera.
        """
        message = messages.image(stamp_ns, camera, rgb)
        self._write(self._camera(camera).topic, messages.IMAGE, stamp_ns, message)

    def joint_state(
        self, stamp_ns: int, names: tuple[str, ...], positions: np.ndarray, velocities: np.ndarray | None = None
    ) -> None:
        """Writes a JointState, or one on each topic of an arm; ``positions`` and ``velocities`` are (len(names),)."""
        velocities = np.empty(0) if velocities is None else velocities
        by_topic = self._robot.joints_by_topic()
        if len(by_topic) == 1:
            message = messages.joint_state(stamp_ns, names, positions, velocities)
            self._write(self._robot.joint_states_topic, messages.JOINT_STATE, stamp_ns, message)
            return
        for topic, arm in by_topic.items():
            columns = [k for k, name in enumerate(names) if name in arm]
            speeds = velocities[columns] if len(velocities) else velocities
            message = messages.joint_state(stamp_ns, [names[k] for k in columns], positions[columns], speeds)
            self._write(topic, messages.JOINT_STATE, stamp_ns, message)

    def command(self, controller: str, now_ns: int, trajectory: Trajectory) -> None:
        """Writes the JointTrajectory sent to a controller at ``now_ns``, stamped with its first waypoint's instant.

        Raises:
            BagError: the robot has no such controller.
        """
        topics = {entry.name: entry.topic for entry in self._robot.controllers}
        if controller not in topics:
            raise BagError(one_of("Controller", controller, topics))
        message = messages.joint_trajectory(trajectory)
        self._write(topics[controller], messages.JOINT_TRAJECTORY, now_ns, message)

    def instruction(self, now_ns: int, text: str) -> None:
        """Writes the instruction, offered transient local so that a replay reaches late subscribers."""
        self._write(self._robot.instruction_topic, messages.STRING, now_ns, messages.string(text), LATCHED)

    def clock(self, now_ns: int) -> None:
        """Writes /clock."""
        self._write(CLOCK_TOPIC, messages.CLOCK, now_ns, messages.clock(now_ns))

    def serialized(self, topic: str, msgtype: str, log_ns: int, cdr: bytes, latched: bool = False) -> None:
        """Writes a message that is CDR already, as a live recorder receives it.

        Raises:
            BagError: the type is not known, or the topic already carries another one.
        """
        self._writer.write(self._connection(topic, msgtype, LATCHED if latched else VOLATILE), log_ns, cdr)

    def _write(self, topic: str, msgtype: str, log_ns: int, message: Any, qos: Qos = VOLATILE) -> None:
        cdr = messages.typestore().serialize_cdr(message, msgtype)
        self._writer.write(self._connection(topic, msgtype, qos), int(log_ns), cdr)

    def _connection(self, topic: str, msgtype: str, qos: Qos) -> Connection:
        connection = self._connections.get(topic)
        if connection is None:
            store = messages.typestore()
            if msgtype not in store.types:
                raise BagError(
                    f"Topic {topic} has type '{msgtype}', which is no standard ROS 2 type; do not record it."
                )
            connection = self._writer.add_connection(topic, msgtype, typestore=store, offered_qos_profiles=[qos])
            self._connections[topic] = connection
        if connection.msgtype != msgtype:
            raise BagError(f"Topic {topic} carries {connection.msgtype}; a message of type {msgtype} does not fit.")
        return connection

    def _camera(self, name: str) -> Camera:
        cameras: Mapping[str, Camera] = self._robot.cameras
        if name not in cameras:
            raise BagError(one_of("Camera", name, cameras))
        return cameras[name]

    def _refuse_existing(self) -> None:
        if self._path.exists():
            raise BagError(f"{self._path} exists already; move or delete it, or choose another name.")
