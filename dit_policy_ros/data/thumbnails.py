"""A few small images of every camera topic of a bag, evenly over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from dit_policy_ros.data.bag_reader import decode_message
from dit_policy_ros.data.images import encode_jpeg
from dit_policy_ros.data.inspection import Inspection
from dit_policy_ros.errors import BagError
from dit_policy_ros.types import seconds

_QUALITY = 80


@dataclass(frozen=True)
class Thumbnail:
    """One image."""

    time_s: float
    """Of recording, since the beginning of the bag."""
    jpeg: bytes
    """Empty where the image cannot be decoded."""
    problem: str = ""
    """Why not."""


def thumbnails(inspection: Inspection, count: int = 8, width: int = 200) -> Mapping[str, tuple[Thumbnail, ...]]:
    """Returns topic to ``count`` thumbnails or fewer; only these images are decoded."""
    wanted = {
        topic: set(np.linspace(0, stream.count - 1, min(count, stream.count)).round().astype(int).tolist())
        for topic, stream in inspection.streams.items()
        if stream.sizes and stream.count
    }
    found: dict[str, list[Thumbnail]] = {topic: [] for topic in wanted}
    seen = dict.fromkeys(wanted, 0)
    try:
        for topic, log_ns, cdr in inspection.bag.messages(wanted.keys()):
            if seen[topic] in wanted[topic]:
                time_s = seconds(log_ns - inspection.start_ns)
                found[topic].append(_thumbnail(cdr, inspection.bag.topics[topic], topic, time_s, width))
            seen[topic] += 1
    except BagError:
        # Where the file breaks off is among the findings already.
        if not inspection.findings:
            raise
    return {topic: tuple(entries) for topic, entries in found.items()}


def _thumbnail(cdr: bytes, msgtype: str, topic: str, time_s: float, width: int) -> Thumbnail:
    try:
        image = decode_message(cdr, msgtype, topic)
    except BagError as problem:
        return Thumbnail(time_s, b"", str(problem))
    return Thumbnail(time_s, small_jpeg(image, width))


def small_jpeg(image: np.ndarray, width: int) -> bytes:
    """Returns (H, W, 3) uint8 RGB as JPEG of at most this width."""
    scale = min(width / image.shape[1], 1.0)
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return encode_jpeg(cv2.resize(image, size, interpolation=cv2.INTER_AREA), _QUALITY)
