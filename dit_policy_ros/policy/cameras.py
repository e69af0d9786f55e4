"""What a policy sees of a camera: fixed parts of the image at fixed sizes, in training and live alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from dit_policy_ros.errors import DitPolicyError, PolicyError
from dit_policy_ros.strict_yaml import fields_of
from dit_policy_ros.types import Observation


@dataclass(frozen=True)
class CameraView:
    """One camera as the network takes it."""

    name: str
    source: tuple[int, int]
    """(width, height) of the images it was trained on; others are refused, since their geometry would differ."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom of the part that is kept, as shares of width and height."""
    size: tuple[int, int]
    """(width, height) of the network's input, without the frame."""
    frame: tuple[float, float, float, float] | None = None
    """A second part, put to the right of the first: what never moves in the scene and tells how the camera stands."""
    frame_width: int = 0
    """Columns that it takes; its height is that of the first part."""

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Crops and shrinks by area averaging.

        Args:
            image: (H, W, 3) uint8 RGB of the source size.

        Returns:
            (size[1], size[0] + frame_width, 3) uint8.

        Raises:
            PolicyError: the image has another shape or type.
        """
        width, height = self.source
        if image.shape != (height, width, 3) or image.dtype != np.uint8:
            raise PolicyError(
                f"Camera {self.name} gave an image of {image.shape} {image.dtype}, but the policy was trained on "
                f"({height}, {width}, 3) uint8 RGB. Set the camera to that mode, or resize before the policy."
            )
        near = self._part(image, self.box, self.size[0])
        return near if self.frame is None else np.hstack([near, self._part(image, self.frame, self.frame_width)])

    def _part(self, image: np.ndarray, box: tuple[float, float, float, float], columns: int) -> np.ndarray:
        width, height = self.source
        left, top, right, bottom = box
        part = image[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
        return cv2.resize(part, (columns, self.size[1]), interpolation=cv2.INTER_AREA)

    def look(self, observation: Observation) -> np.ndarray:
        """Returns this camera's view of an observation, as ``apply``.

        Raises:
            PolicyError: the observation lacks the camera, or its image does not fit.
        """
        if self.name not in observation.images:
            present = ", ".join(sorted(observation.images)) or "none"
            raise PolicyError(f"Camera {self.name} is missing from the observation; present: {present}.")
        return self.apply(observation.images[self.name])


def parse_view(data: Any, where: str, error: type[DitPolicyError]) -> CameraView:
    """Reads a view from a mapping with its fields.

    Raises:
        DitPolicyError: of the given type; an entry is missing, unknown or malformed.
    """
    entry = fields_of(data, where, error, ("name", "source", "box", "size"), ("frame", "frame_width"))
    try:
        box, frame = (_shares(entry.get(key)) for key in ("box", "frame"))
        source, size = (tuple(int(value) for value in entry[key]) for key in ("source", "size"))
        view = CameraView(str(entry["name"]), source, box, size, frame, int(entry.get("frame_width", 0)))
    except (TypeError, ValueError) as problem:
        raise error(f"{where} is malformed: {problem}.") from problem
    if (view.frame is None) != (view.frame_width == 0):
        raise error(f"{where}: give frame and frame_width together, or neither.")
    return view


def _shares(values: Any) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom."""
    if values is None:
        return None
    left, top, right, bottom = (float(value) for value in values)
    if not (0.0 <= left < right <= 1.0 and 0.0 <= top < bottom <= 1.0):
        raise ValueError(f"the box {list(values)} is not left, top, right, bottom within 0..1")
    return left, top, right, bottom
