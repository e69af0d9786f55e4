"""Cameras and joint states of a robot as topics, assembled into observations on demand."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial

from sensor_msgs.msg import CompressedImage, Image, JointState

from dit_policy_ros.errors import PolicyError, RobotError, one_of
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.images import message_to_rgb
from dit_policy_ros.ros.conversions.joints import joint_state_to_sample
from dit_policy_ros.ros.conversions.stamps import time_to_ns
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.runtime.synchroniser import Assembly, Synchroniser


class Observer:
    """Callbacks store messages; the one worker that asks for an observation takes them apart and decodes."""

    def __init__(self, node: ManagedNode, robot: RobotSpec, cameras: tuple[str, ...]) -> None:
        """Subscribes.

        Args:
            cameras: those that an observation must have; the first gives the observation its stamp.

        Raises:
            PolicyError: the robot has no such camera.
        """
        self._node = node
        self._robot = robot
        self.cameras = cameras
        self._synchroniser = Synchroniser(robot)
        self._arrived = threading.Condition()
        self._images: dict[str, Image | CompressedImage] = {}
        self._joints: deque[JointState] = deque(maxlen=256)
        for camera in cameras:
            if camera not in robot.cameras:
                raise PolicyError(f"{one_of('Camera', camera, robot.cameras)} The policy needs it; see the robot YAML.")
            topic, compressed = robot.cameras[camera].topic, robot.cameras[camera].transport == "compressed"
            kind, topic = (CompressedImage, f"{topic}/compressed") if compressed else (Image, topic)
            node.listen_to(kind, topic, partial(self._store_image, camera), qos.NEWEST)
        node.listen_to(JointState, robot.joint_states_topic, self._store_joints, qos.SENSOR)

    def clear(self) -> None:
        """Forgets everything that arrived."""
        with self._arrived:
            self._images.clear()
            self._joints.clear()
        self._synchroniser.clear()

    def wait(self, timeout_s: float) -> None:
        """Waits until the next image of the reference camera arrives, at most ``timeout_s``."""
        with self._arrived:
            self._arrived.wait(timeout_s)

    def stamp_ns(self) -> int | None:
        """Returns the stamp that an observation would have now; None where there are no data yet."""
        self._take()
        return self._synchroniser.stamp_ns(self.cameras)

    def observe(self, now_ns: int) -> Assembly:
        """Returns the newest observation, or why there is none.

        Raises:
            RobotError: an image cannot be decoded.
        """
        self._take()
        return self._synchroniser.assemble(self.cameras, now_ns)

    def _store_image(self, camera: str, message: Image | CompressedImage) -> None:
        with self._arrived:
            self._images[camera] = message
            if camera == self.cameras[0]:
                self._arrived.notify_all()

    def _store_joints(self, message: JointState) -> None:
        with self._arrived:
            self._joints.append(message)

    def _take(self) -> None:
        with self._arrived:
            images, self._images = self._images, {}
            joints, self._joints = self._joints, deque(maxlen=self._joints.maxlen)
        for camera, image in images.items():
            self._synchroniser.add_image(camera, time_to_ns(image.header.stamp), partial(message_to_rgb, image))
        for message in joints:
            try:
                sample = joint_state_to_sample(message, self._robot.names)
                reason = self._synchroniser.add_joints(sample.stamp_ns, sample.positions)
            except RobotError as problem:
                reason = str(problem)
            self._node.problems.tell(self._robot.joint_states_topic, reason)
