"""Assembles one observation out of streams that arrive when they like. The same code serves topics, bags, simulation.

Which image of a camera goes with the reference, and how far apart they may be, is in the robot's YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.errors import RobotError
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.runtime.buffer import JointBuffer
from dit_policy_ros.runtime.ring import Image, ImageRing
from dit_policy_ros.space import gather
from dit_policy_ros.types import Observation, Policy, nanoseconds, seconds

MAX_FUTURE_S = 0.5
"""Stamps farther ahead of the clock are not skew but wrong, [s]."""
_RING = 16


@dataclass(frozen=True)
class Assembly:
    """An observation, or the reason why there is none."""

    observation: Observation | None
    reason: str = ""


@dataclass(frozen=True)
class History:
    """Older frames that a policy looks at as well."""

    frames: int = 1
    """Images of each camera, the newest included."""
    step_s: float = 0.04
    """Between two of them, [s]; the nearest image within half of it counts."""


def history_of(policy: Policy) -> History:
    """Returns the frames that a policy's attribute ``frames`` asks for, one of its steps apart."""
    return History(getattr(policy, "frames", 1), seconds(policy.step_ns))


class Synchroniser:
    """An image of each camera, and the joints at the instant of the reference camera's image.

    Not thread-safe: one lock of the owner guards it.
    """

    def __init__(
        self, spec: RobotSpec, reference: str = "", joints: JointBuffer | None = None, history: History | None = None
    ):
        """Makes a synchroniser without any data.

        Args:
            reference: camera whose stamp is the observation's; '' takes the first camera asked for that is not
                optional or has sent images, or the joints where there is none.
            history: frames that the policy needs.
        """
        self.spec = spec
        self.reference = reference
        self.joints = joints or JointBuffer()
        self.history = history or History()
        self.last_rejection = ""
        self._names = spec.names
        self._joints_max_age_ns = nanoseconds(spec.joint_states_max_age_s)
        looks_back = self.history.frames > 1 or any(camera.pick == "nearest" for camera in spec.cameras.values())
        self._capacity = _RING if looks_back else 1
        self._rings: dict[str, ImageRing] = {}

    def clear(self) -> None:
        """Forgets everything, as after a reset of the world."""
        self.joints.clear()
        self._rings.clear()

    def add_image(self, camera: str, stamp_ns: int, image: Image) -> None:
        """Stores an image; one that is no newer than the newest of its camera is dropped and counted."""
        self._rings.setdefault(camera, ImageRing(self._capacity)).add(stamp_ns, image)

    def add_joints(self, stamp_ns: int, positions: Mapping[str, float]) -> str:
        """Stores joint positions; returns '' or why they were refused."""
        try:
            values = gather(positions, self._names)
        except RobotError as problem:
            self.last_rejection = str(problem)
            return self.last_rejection
        self.joints.add(stamp_ns, values)
        return ""

    def counts(self) -> dict[str, int]:
        """Returns what was dropped and how often time jumped back, by name; only what happened."""
        sources = {"joint states": self.joints, **{f"images of {name}": ring for name, ring in self._rings.items()}}
        found = {
            f"{kind.replace('_', ' ')} {name}": getattr(source, kind, 0)
            for name, source in sources.items()
            for kind in ("out_of_order", "duplicates", "jumps")
        }
        return {name: count for name, count in found.items() if count}

    def stamp_ns(self, cameras: tuple[str, ...]) -> int | None:
        """Returns the stamp that an observation of these cameras would have now; None where data lack."""
        reference = self._reference_of(cameras)
        if not reference:
            return self.joints.newest_ns
        return self._rings[reference].newest_ns if reference in self._rings else None

    def assemble(self, cameras: tuple[str, ...], now_ns: int) -> Assembly:
        """Returns the newest observation with images of these cameras, or the reason why there is none.

        Optional cameras that cannot be used are absent from it.
        """
        stamp_ns = self.stamp_ns(cameras)
        stamps: dict[str, int] = {}
        for camera in cameras:
            reason = self._reject_image(camera, now_ns) or self._pick(camera, stamp_ns, stamps)
            if reason and not self._is_optional(camera):
                return Assembly(None, reason)
        reason = self._reject_joints(stamp_ns, now_ns)
        if reason:
            return Assembly(None, reason)
        values = self.joints.at(stamp_ns)
        if values is None:
            return Assembly(
                None, f"joint states missing: none around the image of {seconds(now_ns - stamp_ns):.3f} s ago"
            )
        return Assembly(
            Observation(
                stamp_ns=stamp_ns,
                positions=dict(zip(self._names, values.tolist(), strict=True)),
                images={camera: self._rings[camera].image(stamp) for camera, stamp in stamps.items()},
                image_stamps_ns=stamps,
                earlier_images=self._earlier(stamps),
            )
        )

    def _reference_of(self, cameras: tuple[str, ...]) -> str:
        if self.reference or not cameras:
            return self.reference
        usable = [camera for camera in cameras if camera in self._rings or not self._is_optional(camera)]
        return usable[0] if usable else ""

    def _is_optional(self, camera: str) -> bool:
        return camera in self.spec.cameras and self.spec.cameras[camera].optional

    def _pick(self, camera: str, stamp_ns: int | None, stamps: dict[str, int]) -> str:
        """Adds the stamp of a camera's image to ``stamps``; returns '' or why there is none near enough."""
        rule, ring = self.spec.cameras[camera], self._rings[camera]
        if stamp_ns is None:  # Joints are missing, which is told next.
            return ""
        picked = ring.nearest(stamp_ns) if rule.pick == "nearest" else ring.newest_ns
        apart_s = seconds(abs(picked - stamp_ns))
        if rule.tolerance_s and apart_s > rule.tolerance_s:
            return f"camera apart: {camera} is {apart_s:.3f} s off the reference (limit {rule.tolerance_s:g} s)"
        stamps[camera] = picked
        return ""

    def _earlier(self, stamps: Mapping[str, int]) -> tuple[dict[str, np.ndarray], ...]:
        """Older frames, the oldest first; what has no image within half a step of its instant is absent."""
        step_ns = nanoseconds(self.history.step_s)
        frames = []
        for back in range(self.history.frames - 1, 0, -1):
            frame = {}
            for camera, stamp_ns in stamps.items():
                wanted = stamp_ns - back * step_ns
                found = self._rings[camera].nearest(wanted)
                if 2 * abs(found - wanted) <= step_ns:
                    frame[camera] = self._rings[camera].image(found)
            frames.append(frame)
        return tuple(frames)

    def _reject_joints(self, stamp_ns: int | None, now_ns: int) -> str:
        newest_ns = self.joints.newest_ns
        if newest_ns is None or stamp_ns is None:
            topics = " and ".join(self.spec.measured_topics)
            missing = topics if newest_ns is None else f"image of camera {self.reference}"
            return f"no data: nothing valid on {missing} yet"
        age_s = seconds(now_ns - newest_ns)
        if age_s < -MAX_FUTURE_S:
            return f"joint states future: {-age_s:.3f} s ahead of the clock (limit {MAX_FUTURE_S:g} s)"
        if now_ns - newest_ns > self._joints_max_age_ns:
            return f"joint states stale: {age_s:.3f} s old (limit {self.spec.joint_states_max_age_s:g} s)"
        return ""

    def _reject_image(self, camera: str, now_ns: int) -> str:
        if camera not in self.spec.cameras:
            known = ", ".join(sorted(self.spec.cameras)) or "none"
            return f"camera unknown: {camera} is not a camera of {self.spec.name} (it has {known})"
        ring = self._rings.get(camera)
        if ring is None or ring.newest_ns is None:
            return f"camera missing: {camera} has sent no image on {self.spec.cameras[camera].topic} yet"
        age_s = seconds(now_ns - ring.newest_ns)
        if age_s > self.spec.cameras[camera].max_age_s:
            return f"camera stale: {camera} is {age_s:.3f} s old (limit {self.spec.cameras[camera].max_age_s:g} s)"
        if age_s < -MAX_FUTURE_S:
            return f"camera future: {camera} is {-age_s:.3f} s ahead of the clock (limit {MAX_FUTURE_S:g} s)"
        return ""
