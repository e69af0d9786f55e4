"""From camera images to the pixels of a vision encoder, as the official deployments of RDT and H-RDT do it.

Source: the robot deployment script of https://github.com/thu-ml/RoboticsDiffusionTransformer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.weights import read_json

BICUBIC = 3
"""Number of the filter in PIL and in ``preprocessor_config.json``."""


@dataclass(frozen=True)
class PixelFormat:
    """What a vision encoder was trained on; read from its ``preprocessor_config.json``."""

    size: tuple[int, int]
    """(height, width)."""
    mean: tuple[float, float, float]
    """RGB, of values 0..1."""
    std: tuple[float, float, float]
    resample: int = BICUBIC
    pad: bool = True
    """False stretches an image that is not a square, instead of padding it."""

    @classmethod
    def from_directory(cls, directory: Path) -> PixelFormat:
        """Reads the format of a local model directory.

        Raises:
            CheckpointError: the file is missing or says no size, mean and deviation.
        """
        path = Path(directory) / "preprocessor_config.json"
        settings = read_json(path)
        size = settings.get("crop_size") if settings.get("do_center_crop") else settings.get("size")
        if isinstance(size, int):
            size = {"height": size, "width": size}
        try:
            return cls(
                (size["height"], size["width"]),
                tuple(settings["image_mean"]),
                tuple(settings["image_std"]),
                settings.get("resample", BICUBIC),
            )
        except (KeyError, TypeError) as problem:
            raise CheckpointError(
                f"{path} needs 'size' with height and width, 'image_mean' and 'image_std'."
            ) from problem

    @property
    def colour(self) -> tuple[int, int, int]:
        """The mean colour, RGB 0..255, rounded down: padding, and the picture of a missing camera."""
        return tuple(int(channel * 255) for channel in self.mean)

    def __call__(self, images: Sequence[np.ndarray | None]) -> Tensor:
        """Pads to squares (or not, see ``pad``), resizes and normalises.

        Args:
            images: each (H, W, 3) uint8 RGB of any size; None for a missing camera, which becomes plain mean colour.

        Returns:
            (N, 3, height, width) float32.

        Raises:
            PolicyError: an image has another shape or type.
        """
        from PIL import Image

        height, width = self.size
        rows = []
        for image in images:
            if image is None:
                image = np.full((height, width, 3), self.colour, dtype=np.uint8)
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise PolicyError(f"An image is {image.shape} {image.dtype}; it must be (H, W, 3) uint8 RGB.")
            square = Image.fromarray(pad_to_square(image, self.colour) if self.pad else image)
            rows.append(np.asarray(square.resize((width, height), self.resample)))
        pixels = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 255  # (N, 3, H, W)
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


def pad_to_square(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Returns the image (H, W, 3) in the middle of a square of this colour; an odd rest goes right or below."""
    height, width = image.shape[:2]
    side = max(height, width)
    square = np.full((side, side, 3), colour, dtype=image.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def in_order(
    history: Sequence[Mapping[str, np.ndarray]], cameras: Sequence[str], frames: int
) -> list[np.ndarray | None]:
    """Returns the images of all frames, oldest first, each frame in the order of ``cameras``; None is missing.

    RDT sees two frames of the cameras (exterior, right wrist, left wrist). Before there is a history, the frames
    that do not exist yet are missing.

    Args:
        history: images by camera name, oldest first; at most ``frames``.
    """
    absent: list[Mapping[str, np.ndarray]] = [{}] * (frames - len(history))
    return [frame.get(camera) for frame in (*absent, *history[-frames:]) for camera in cameras]
