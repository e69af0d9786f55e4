"""Frames in an MP4 at a constant rate, written and read one by one."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from dit_policy_ros.errors import BagError

CODEC = "h264"


def pixel_format(width: int, height: int) -> str:
    """Returns the format that keeps the size: colour at half resolution needs even sides."""
    return "yuv420p" if width % 2 == 0 and height % 2 == 0 else "yuv444p"


class FrameWriter:
    """Context manager that encodes H.264. Every second frame is a key frame, so that any one is found quickly."""

    def __init__(self, path: Path, frames_per_s: int, quality: int = 18) -> None:
        """Prepares a file.

        Args:
            quality: constant rate factor of x264, 0 (lossless) to 51.
        """
        self.path = path
        self.count = 0
        """Frames so far."""
        self.size_bytes = 0
        """Of what was encoded so far."""
        self._rate = Fraction(frames_per_s)
        self._quality = quality
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> FrameWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self.path), "w")
        return self

    def add(self, image: np.ndarray) -> None:
        """Adds (H, W, 3) uint8 RGB.

        Raises:
            BagError: not of the size of the first.
        """
        height, width = image.shape[:2]
        if self._size is None:
            self._size = (width, height)
            options = {"crf": str(self._quality), "preset": "veryfast", "g": "2", "bf": "0", "threads": "1"}
            self._stream = self._container.add_stream("libx264", rate=self._rate, options=options)
            self._stream.width, self._stream.height = width, height
            self._stream.pix_fmt = pixel_format(width, height)
        if self._size != (width, height):
            first = "x".join(map(str, self._size))
            raise BagError(f"An image is {width}x{height}, but those before were {first}; a video has one size.")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = self.count, 1 / self._rate
        self._write(frame)
        self.count += 1

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._size is not None and kind is None:
            self._write(None)
        self._container.close()

    def _write(self, frame: av.VideoFrame | None) -> None:
        packets = self._stream.encode(frame)
        self.size_bytes += sum(packet.size for packet in packets)
        self._container.mux(packets)


def read_frames(path: Path, start_s: float, count: int, frames_per_s: float) -> Iterator[np.ndarray]:
    """Yields ``count`` frames from an instant on, (H, W, 3) uint8 RGB.

    Raises:
        BagError: the file is missing or is no video, or ends before.
    """
    slack_s = 0.5 / frames_per_s
    found = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            container.seek(max(0, int((start_s - slack_s) / stream.time_base)), stream=stream)
            for frame in container.decode(stream):
                if frame.time < start_s - slack_s:
                    continue
                if found == count:
                    break
                found += 1
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, OSError, IndexError) as problem:
        raise BagError(f"{path} cannot be decoded as a video: {problem}. Download or export it again.") from problem
    if found < count:
        raise BagError(f"{path} holds {found} frames from {start_s:.3f} s on; {count} are needed. Download it again.")
