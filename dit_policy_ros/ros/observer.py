"""Cameras and joint states of a robot as topics, assembled into observations on demand."""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from dit_policy_ros.errors import PolicyError, one_of
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.images import message_to_rgb
from dit_policy_ros.ros.conversions.stamps import time_to_ns
from dit_policy_ros.ros.joint_inbox import JointInbox
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.runtime.stages import Stages
from dit_policy_ros.runtime.synchroniser import Assembly, History, Synchroniser


class Observer:
    """Callbacks store messages; the one worker that asks for an observation takes them apart and decodes."""

    def __init__(
        self,
        node: ManagedNode,
        robot: RobotSpec,
        cameras: tuple[str, ...],
        stages: Stages | None = None,
        history: History | None = None,
    ) -> None:
        """Subscribes.

        Args:
            cameras: those that an observation must have; the first gives the observation its stamp.
            history: older frames that an observation must have as well.
            stages: told how long messages were on their way, and what decoding and synchronising took.

        Raises:
            PolicyError: the robot has no such camera.
        """
        self._node = node
        self._robot = robot
        self.cameras = cameras
        self._stages = stages or Stages()
        self._synchroniser = Synchroniser(robot, history=history)
        self._decoding_ns = 0
        self._arrived = threading.Condition()
        # With older frames, none that arrives between two observations may be lost.
        depth = 16 if history is not None and history.frames > 1 else 1
        self._images: dict[str, deque[Image | CompressedImage]] = {camera: deque(maxlen=depth) for camera in cameras}
        for camera in cameras:
            if camera not in robot.cameras:
                raise PolicyError(f"{one_of('Camera', camera, robot.cameras)} The policy needs it; see the robot YAML.")
            topic, compressed = robot.cameras[camera].topic, robot.cameras[camera].transport == "compressed"
            kind, topic = (CompressedImage, f"{topic}/compressed") if compressed else (Image, topic)
            node.listen_to(kind, topic, partial(self._store_image, camera), qos.NEWEST)
        self._joints = JointInbox(node, robot, length=256)

    def clear(self) -> None:
        """Forgets everything that arrived."""
        with self._arrived:
            for images in self._images.values():
                images.clear()
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

    def counts(self) -> dict[str, int]:
        """Returns what was dropped, by name; see ``Synchroniser.counts``."""
        return self._synchroniser.counts()

    def observe(self, now_ns: int) -> Assembly:
        """Returns the newest observation, or why there is none.

        Raises:
            RobotError: an image cannot be decoded.
        """
        begin_ns, self._decoding_ns = time.monotonic_ns(), 0
        self._take()
        assembly = self._synchroniser.assemble(self.cameras, now_ns)
        if assembly.observation is not None:
            self._stages.add("decode", self._decoding_ns)
            self._stages.add("synchronise", time.monotonic_ns() - begin_ns - self._decoding_ns)
        return assembly

    def _decode(self, message: Image | CompressedImage) -> np.ndarray:
        begin_ns = time.monotonic_ns()
        image = message_to_rgb(message)
        self._decoding_ns += time.monotonic_ns() - begin_ns
        return image

    def _store_image(self, camera: str, message: Image | CompressedImage) -> None:
        self._stages.add("receive", self._node.now_ns() - time_to_ns(message.header.stamp))
        with self._arrived:
            self._images[camera].append(message)
            if camera == self.cameras[0]:
                self._arrived.notify_all()

    def _take(self) -> None:
        with self._arrived:
            images = [(camera, image) for camera, waiting in self._images.items() for image in waiting]
            for waiting in self._images.values():
                waiting.clear()
        for camera, image in images:
            self._synchroniser.add_image(camera, time_to_ns(image.header.stamp), partial(self._decode, image))
        for heard in self._joints.take():
            reason, sample = heard.problem, heard.sample
            if sample is not None:
                reason = self._synchroniser.add_joints(sample.stamp_ns, sample.positions)
            self._node.problems.tell(heard.topic, reason)
