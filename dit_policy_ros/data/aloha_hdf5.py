"""Reads the HDF5 episodes of ALOHA ("Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware").

``observations/qpos``, ``observations/qvel`` and ``action`` are (T, 14): left arm and gripper, then right; a gripper is
0 (closed) to 1 (open). ``observations/images/CAMERA`` is (T, H, W, 3), or with the attribute ``compress`` (T, B), each
row a JPEG file filled up with zeros. Episodes run at 50 Hz.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import h5py
import numpy as np

from dit_policy_ros.data.grid_episode import Frames, GridEpisode, grid_times_ns
from dit_policy_ros.errors import BagError
from dit_policy_ros.types import NS_PER_S

FRAMES_PER_S = 50
_NEEDED = ("observations/qpos", "action")


class AlohaFile:
    """One episode on disk; its images stay there until asked for."""

    def __init__(self, path: Path) -> None:
        """Looks at a file.

        Raises:
            BagError: it is no HDF5 file, or lacks joints or actions.
        """
        self.path = path
        try:
            with h5py.File(path, "r") as file:
                missing = [name for name in _NEEDED if name not in file]
                if missing:
                    raise BagError(f"{path} lacks {', '.join(missing)}; it is no episode of ALOHA.")
                self.is_simulated = bool(file.attrs.get("sim", False))
                """What the attribute ``sim`` says."""
                self.is_compressed = bool(file.attrs.get("compress", False))
                self.cameras = tuple(file.get("observations/images", {}))
                self._states, self._actions = file["observations/qpos"][:], file["action"][:]
                self._velocities = file["observations/qvel"][:] if "observations/qvel" in file else None
        except OSError as problem:
            raise BagError(f"{path} cannot be read as HDF5: {problem}. Copy it again.") from problem
        if self._states.shape != self._actions.shape or self._states.ndim != 2 or not len(self._states):
            raise BagError(f"{path}: qpos is {self._states.shape} and action {self._actions.shape}; both are (T, J).")

    def episode(
        self, joints: tuple[str, ...], cameras: Mapping[str, str], instruction: str, is_bgr: bool = False
    ) -> GridEpisode:
        """Returns it.

        Args:
            joints: names of the columns, in their order.
            cameras: name in the file to the name it gets.
            instruction: the file has none.
            is_bgr: the images hold blue first.

        Raises:
            BagError: the columns or cameras are others.
        """
        if self._states.shape[1] != len(joints):
            raise BagError(f"{self.path} has {self._states.shape[1]} joints; the robot has {len(joints)}.")
        unknown = [name for name in cameras if name not in self.cameras]
        if unknown:
            raise BagError(
                f"{self.path} has no camera {', '.join(unknown)}; it has {', '.join(self.cameras) or 'none'}."
            )
        times_ns = grid_times_ns(NS_PER_S, NS_PER_S + (len(self._states) - 1) * NS_PER_S // FRAMES_PER_S, FRAMES_PER_S)
        return GridEpisode(
            names=joints,
            times_ns=times_ns,
            states=self._states.astype(np.float64),
            actions=self._actions.astype(np.float64),
            instructions=(instruction,) * len(times_ns),
            cameras={new: lambda name=name: self._frames(name, times_ns, is_bgr) for name, new in cameras.items()},
            velocities=None if self._velocities is None else self._velocities.astype(np.float64),
        )

    def _frames(self, camera: str, times_ns: np.ndarray, is_bgr: bool) -> Frames:
        with h5py.File(self.path, "r") as file:
            stored = file[f"observations/images/{camera}"]
            for k, stamp_ns in enumerate(times_ns.tolist()):
                # Encoded as the arrays were, so decoding gives their own order of colours.
                image = cv2.imdecode(stored[k], cv2.IMREAD_COLOR) if stored.ndim == 2 else stored[k]
                if image is None or image.ndim != 3:
                    raise BagError(f"{self.path}: image {k} of {camera} cannot be decoded.")
                yield stamp_ns, np.ascontiguousarray(image[..., ::-1]) if is_bgr else image
