"""What a policy sees of a camera: a fixed part of the image at a fixed size, in training and live alike."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dit_policy_ros.errors import PolicyError
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
    """(width, height) of the network's input."""

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Crops and shrinks by area averaging.

        Args:
            image: (H, W, 3) uint8 RGB of the source size.

        Returns:
            (size[1], size[0], 3) uint8.

        Raises:
            PolicyError: the image has another shape or type.
        """
        width, height = self.source
        if image.shape != (height, width, 3) or image.dtype != np.uint8:
            raise PolicyError(
                f"Camera {self.name} gave an image of {image.shape} {image.dtype}, but the policy was trained on "
                f"({height}, {width}, 3) uint8 RGB. Set the camera to that mode, or resize before the policy."
            )
        left, top, right, bottom = self.box
        part = image[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
        return cv2.resize(part, self.size, interpolation=cv2.INTER_AREA)

    def look(self, observation: Observation) -> np.ndarray:
        """Returns this camera's view of an observation, as ``apply``.

        Raises:
            PolicyError: the observation lacks the camera, or its image does not fit.
        """
        if self.name not in observation.images:
            present = ", ".join(sorted(observation.images)) or "none"
            raise PolicyError(f"Camera {self.name} is missing from the observation; present: {present}.")
        return self.apply(observation.images[self.name])
