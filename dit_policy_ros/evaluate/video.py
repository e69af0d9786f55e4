"""Videos of episodes: cameras side by side, the instruction, the time, and the outcome at the end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import cv2
import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dit_policy_ros.data.bag_reader import Episode
from dit_policy_ros.errors import ConfigError
from dit_policy_ros.types import seconds

OUTCOMES: Mapping[str, tuple[str, tuple[int, int, int]]] = {
    "strict": ("success", (18, 134, 106)),
    "sticky": ("reached, not kept", (185, 120, 0)),
    "failure": ("failure", (194, 52, 80)),
}
"""Outcome to its words and colour."""
_BACKGROUND = (17, 21, 27)
_INK, _MUTED = (230, 234, 240), (148, 160, 178)
_BAR = 44
_GAP = 4
_SIZES = (17, 15, 13)


def compose(images: Mapping[str, np.ndarray], height: int = 360) -> np.ndarray:
    """Places camera images side by side: the first large, the others in a column to its right.

    Args:
        images: camera name to (H, W, 3) uint8 RGB of any sizes, in the order they are to be shown.
        height: of the result.

    Returns:
        (height, W, 3) uint8 RGB.

    Raises:
        ConfigError: there are no images.
    """
    if not images:
        raise ConfigError("A video frame needs at least one camera image; check the cameras of the robot YAML.")
    first, *others = images.values()
    large = _scaled(first, height)
    if not others:
        return large
    heights = np.diff(np.linspace(0, height + _GAP, len(others) + 1).round().astype(int)) - _GAP
    column = [_scaled(image, max(int(part), 1)) for image, part in zip(others, heights, strict=True)]
    width = max(part.shape[1] for part in column)
    canvas = np.full((height, large.shape[1] + _GAP + width, 3), _BACKGROUND, np.uint8)
    canvas[:, : large.shape[1]] = large
    top = 0
    for part in column:
        left = large.shape[1] + _GAP
        canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
        top += part.shape[0] + _GAP
    return canvas


def caption(frame: np.ndarray, instruction: str, time_s: float | None = None, outcome: str = "") -> np.ndarray:
    """Returns a frame with a bar below that tells instruction, time and, once known, the outcome.

    Raises:
        ConfigError: the outcome is none of ``OUTCOMES``.
    """
    if outcome and outcome not in OUTCOMES:
        raise ConfigError(f"Outcome '{outcome}' does not exist. Available: {', '.join(OUTCOMES)}.")
    height, width = frame.shape[:2]
    canvas = Image.new("RGB", (width, height + _BAR), _BACKGROUND)
    canvas.paste(Image.fromarray(frame), (0, 0))
    draw = ImageDraw.Draw(canvas)
    middle, right = height + _BAR // 2, width - 12
    if time_s is not None:
        text = f"{time_s:5.1f} s"
        draw.text((right, middle), text, fill=_MUTED, font=_font(16), anchor="rm")
        right -= int(draw.textlength("000.0 s", font=_font(16))) + 14
    if outcome:
        words, colour = OUTCOMES[outcome]
        wide = int(draw.textlength(words, font=_font(15)))
        box = (right - wide - 20, middle - 13, right, middle + 13)
        draw.rounded_rectangle(box, radius=13, fill=colour)
        draw.text((right - 10, middle), words, fill=(255, 255, 255), font=_font(15), anchor="rm")
        right -= wide + 34
    text, size = _fitted(draw, instruction, right - 12)
    draw.text((12, middle), text, fill=_INK, font=_font(size), anchor="lm")
    return np.asarray(canvas)


class VideoWriter:
    """Context manager that writes H.264 in MP4, which browsers play. The file appears when it is complete."""

    def __init__(self, path: str | Path, frames_per_s: float, quality: int = 25) -> None:
        """Prepares a video.

        Args:
            path: file ending in ``.mp4``; an older one is replaced.
            frames_per_s: of playing.
            quality: constant rate factor of x264, 0 (best) to 51.
        """
        self._path = Path(path)
        self._temporary = self._path.with_suffix(".writing.mp4")
        self._frames_per_s = frames_per_s
        self._quality = quality
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def add(self, frame: np.ndarray) -> None:
        """Adds (H, W, 3) uint8 RGB; odd sizes are padded by a pixel, since the codec needs even ones.

        Raises:
            ConfigError: not of the size of the first frame.
        """
        height, width = frame.shape[:2]
        if self._size is None:
            self._size = (width, height)
            self._start(width + width % 2, height + height % 2)
        if self._size != (width, height):
            first = "x".join(map(str, self._size))
            raise ConfigError(f"A frame is {width}x{height}, but the video began with {first}; keep one size.")
        padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._sink.send(np.ascontiguousarray(padded))

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._size is not None:
            self._sink.close()
        if kind is not None:
            self._temporary.unlink(missing_ok=True)
        elif self._size is None:
            raise ConfigError(f"No frame was added to {self._path}; a video needs at least one.")
        else:
            os.replace(self._temporary, self._path)

    def _start(self, width: int, height: int) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._sink = imageio_ffmpeg.write_frames(
            str(self._temporary),
            (width, height),
            fps=self._frames_per_s,
            codec="libx264",
            macro_block_size=2,
            quality=None,
            output_params=[
                "-crf",
                str(self._quality),
                "-preset",
                "veryfast",
                "-threads",
                "1",
                "-movflags",
                "+faststart",
            ],
        )
        self._sink.send(None)


def write_episode_video(episode: Episode, path: str | Path, outcome: str = "", hold_s: float = 1.5) -> None:
    """Writes a video of a recorded episode, in real time, from its bag.

    Args:
        episode: shown are all cameras of its robot, each as of the stamp of the first one's images.
        path: file ending in ``.mp4``.
        outcome: shown on the last frame; by default what the bag says of itself.
        hold_s: how long the last frame stays, [s].

    Raises:
        BagError: a camera has no images.
    """
    first, *others = episode.robot.cameras
    stamps_ns = episode.image_stamps_ns(first)
    period_s = seconds(int(np.median(np.diff(stamps_ns)))) if len(stamps_ns) > 1 else 0.1
    streams = {camera: _Stream(episode, camera) for camera in others}
    outcome = outcome or episode.metadata.outcome
    with VideoWriter(path, 1.0 / period_s) as video:
        scene, time_s = np.empty(0), 0.0
        for stamp_ns, image in episode.frames(first):
            shown = {first: image} | {camera: stream.at(stamp_ns) for camera, stream in streams.items()}
            scene, time_s = compose(shown), seconds(stamp_ns - int(stamps_ns[0]))
            video.add(caption(scene, episode.instruction, time_s))
        for _ in range(max(1, round(hold_s / period_s))):
            video.add(caption(scene, episode.instruction, time_s, outcome))


class _Stream:
    """The newest image of a camera as of an instant that only grows; before its first one, the first."""

    def __init__(self, episode: Episode, camera: str) -> None:
        self._frames = episode.frames(camera)
        _, self._image = self._next = next(self._frames)

    def at(self, stamp_ns: int) -> np.ndarray:
        while self._next is not None and self._next[0] <= stamp_ns:
            self._image = self._next[1]
            self._next = next(self._frames, None)
        return self._image


def contact_sheet(frames: Sequence[np.ndarray], columns: int, path: str | Path) -> None:
    """Writes frames of any sizes as one PNG, row by row, each as wide as the first.

    Raises:
        ConfigError: there are no frames, or less than one column.
    """
    if not frames or columns < 1:
        raise ConfigError(f"A contact sheet needs frames and columns; got {len(frames)} and {columns}.")
    height, width = frames[0].shape[:2]
    rows = -(-len(frames) // columns)
    sheet = np.full(
        (rows * (height + _GAP) - _GAP, min(columns, len(frames)) * (width + _GAP) - _GAP, 3), 255, np.uint8
    )
    for k, frame in enumerate(frames):
        top, left = (k // columns) * (height + _GAP), (k % columns) * (width + _GAP)
        sheet[top : top + height, left : left + width] = cv2.resize(
            frame, (width, height), interpolation=cv2.INTER_AREA
        )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path, optimize=True)


def _scaled(image: np.ndarray, height: int) -> np.ndarray:
    if image.shape[0] == height:
        return image
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=method)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fitted(draw: ImageDraw.ImageDraw, text: str, width: float) -> tuple[str, int]:
    """Returns a text and the largest size at which it fits; shortened where none is small enough."""
    text = " ".join(text.split())
    for size in _SIZES:
        if draw.textlength(text, font=_font(size)) <= width:
            return text, size
    while text and draw.textlength(f"{text}...", font=_font(size)) > width:
        text = text[:-1]
    return f"{text.rstrip()}...", size
