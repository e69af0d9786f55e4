"""Assembles one observation out of streams that arrive when they like. The same code serves topics and simulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.errors import RobotError
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.runtime.buffer import JointBuffer
from dit_policy_ros.space import gather
from dit_policy_ros.types import Observation, nanoseconds, seconds

Image = np.ndarray | Callable[[], np.ndarray]
"""(H, W, 3) uint8 RGB, or a function that decodes to it when an observation really needs it."""


@dataclass(frozen=True)
class Assembly:
    """An observation, or the reason why there is none."""

    observation: Observation | None
    reason: str = ""


class Synchroniser:
    """Newest image of each camera, and the joints at the instant of the reference camera's image.

    Not thread-safe: one lock of the owner guards it.
    """

    def __init__(self, spec: RobotSpec, reference: str = "", joints: JointBuffer | None = None):
        """Makes a synchroniser without any data.

        Args:
            reference: camera whose stamp is the observation's; '' takes the first camera asked for, or the joints
                where none is asked for.
        """
        self.spec = spec
        self.reference = reference
        self.joints = joints or JointBuffer()
        self.last_rejection = ""
        self._names = spec.names
        self._joints_max_age_ns = nanoseconds(spec.joint_states_max_age_s)
        self._images: dict[str, tuple[int, Image]] = {}

    def clear(self) -> None:
        """Forgets everything, as after a reset of the world."""
        self.joints.clear()
        self._images.clear()

    def add_image(self, camera: str, stamp_ns: int, image: Image) -> None:
        """Stores the newest image of a camera."""
        self._images[camera] = (stamp_ns, image)

    def add_joints(self, stamp_ns: int, positions: Mapping[str, float]) -> str:
        """Stores joint positions; returns '' or why they were refused."""
        try:
            values = gather(positions, self._names)
        except RobotError as problem:
            self.last_rejection = str(problem)
            return self.last_rejection
        self.joints.add(stamp_ns, values)
        return ""

    def stamp_ns(self, cameras: tuple[str, ...]) -> int | None:
        """Returns the stamp that an observation of these cameras would have now; None where data lack."""
        reference = self._reference_of(cameras)
        if not reference:
            return self.joints.newest_ns
        return self._images[reference][0] if reference in self._images else None

    def assemble(self, cameras: tuple[str, ...], now_ns: int) -> Assembly:
        """Returns the newest observation with images of these cameras, or the reason why there is none."""
        for camera in cameras:
            reason = self._reject_image(camera, now_ns)
            if reason:
                return Assembly(None, reason)
        stamp_ns = self.stamp_ns(cameras)
        newest_ns = self.joints.newest_ns
        if newest_ns is None or stamp_ns is None:
            missing = self.spec.joint_states_topic if newest_ns is None else f"image of camera {self.reference}"
            return Assembly(None, f"no data: nothing valid on {missing} yet")
        if now_ns - newest_ns > self._joints_max_age_ns:
            age = f"{seconds(now_ns - newest_ns):.3f} s old (limit {self.spec.joint_states_max_age_s:g} s)"
            return Assembly(None, f"joint states stale: {age}")
        values = self.joints.at(stamp_ns)
        if values is None:
            return Assembly(
                None, f"joint states missing: none around the image of {seconds(now_ns - stamp_ns):.3f} s ago"
            )
        images = {camera: _decoded(self._images[camera][1]) for camera in cameras}
        return Assembly(
            Observation(
                stamp_ns=stamp_ns,
                positions=dict(zip(self._names, values.tolist(), strict=True)),
                images=images,
                image_stamps_ns={camera: self._images[camera][0] for camera in cameras},
            )
        )

    def _reference_of(self, cameras: tuple[str, ...]) -> str:
        return self.reference or (cameras[0] if cameras else "")

    def _reject_image(self, camera: str, now_ns: int) -> str:
        if camera not in self.spec.cameras:
            known = ", ".join(sorted(self.spec.cameras)) or "none"
            return f"camera unknown: {camera} is not a camera of {self.spec.name} (it has {known})"
        if camera not in self._images:
            return f"camera missing: {camera} has sent no image on {self.spec.cameras[camera].topic} yet"
        age_s = seconds(now_ns - self._images[camera][0])
        if age_s > self.spec.cameras[camera].max_age_s:
            return f"camera stale: {camera} is {age_s:.3f} s old (limit {self.spec.cameras[camera].max_age_s:g} s)"
        return ""


def _decoded(image: Image) -> np.ndarray:
    return image() if callable(image) else image
