"""A replay as a Rerun recording: images, joints, predicted chunks, context age and interventions on one timeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import rerun as rr

from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_reader import Episode, decode_message
from dit_policy_ros.data.images import encode_jpeg
from dit_policy_ros.evaluate.replay import ReplayResult
from dit_policy_ros.types import ActionChunk, nanoseconds

APPLICATION = "dit_policy_ros"
TIMELINE = "ros_time"
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"


def write_rerun(path: Path, episode: Episode, result: ReplayResult, chunks: Iterable[ActionChunk]) -> Path:
    """Writes an ``.rrd`` file and returns its path.

    Args:
        chunks: in the order in which they were made.

    Raises:
        BagError: an image cannot be decoded.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with rr.RecordingStream(APPLICATION, recording_id=f"{episode.bag.path.name}-{result.mode}") as stream:
        stream.save(path)
        stream.log("instruction", rr.TextDocument(result.instruction), static=True, strict=True)
        _joints(stream, result)
        for chunk in chunks:
            _chunk(stream, chunk, result.joint_names)
        for entry in result.interventions:
            stream.set_time(TIMELINE, timestamp=_instant(result.start_ns + nanoseconds(entry.time_s)))
            level = rr.TextLogLevel.INFO if entry.kind == "state" else rr.TextLogLevel.WARN
            stream.log("interventions", rr.TextLog(f"{entry.kind}: {entry.text}", level=level), strict=True)
        for camera in episode.robot.cameras:
            _images(stream, episode, camera)
        stream.flush()
    return path


def _joints(stream: rr.RecordingStream, result: ReplayResult) -> None:
    """Measured and commanded positions, and the age of the context."""
    times_ns = result.start_ns + np.round(result.times_s * 1e9).astype(np.int64)
    series = {"context_age": result.context_ages_s}
    for k, joint in enumerate(result.joint_names):
        series[f"joints/{joint}/measured"] = result.measured[:, k]
        series[f"joints/{joint}/commanded"] = result.commanded[:, k]
    for entity, values in series.items():
        known = np.isfinite(values)
        if known.any():
            index = rr.TimeColumn(TIMELINE, timestamp=times_ns[known].astype("datetime64[ns]"))
            stream.send_columns(entity, [index], rr.Scalars.columns(scalars=values[known]), strict=True)


def _chunk(stream: rr.RecordingStream, chunk: ActionChunk, joints: Sequence[str]) -> None:
    """Each joint's predicted positions as a line over the seconds from the observation on."""
    stream.set_time(TIMELINE, timestamp=_instant(chunk.observation_ns))
    ahead_s = (chunk.times_ns - chunk.observation_ns) * 1e-9
    for joint in joints:
        values = chunk.actions[:, chunk.names.index(joint)]
        stream.log(f"chunks/{joint}", rr.LineStrips2D([np.stack([ahead_s, values], axis=1)]), strict=True)
    stream.log("chunks/committed", rr.Scalars(float(chunk.committed)), strict=True)


def _images(stream: rr.RecordingStream, episode: Episode, camera: str) -> None:
    """JPEG and PNG files go in as they are."""
    topic, msgtype = episode.image_topic(camera)
    for _, log_ns, cdr in episode.bag.messages([topic]):
        stream.set_time(TIMELINE, timestamp=_instant(messages.peek_stamp_ns(cdr) or log_ns))
        data = b""
        if msgtype == messages.COMPRESSED_IMAGE:
            data = messages.peek_compressed_image(cdr, topic)[1].tobytes()
        if not data.startswith((_JPEG, _PNG)):
            data = encode_jpeg(decode_message(cdr, msgtype, topic))
        kind = "image/png" if data.startswith(_PNG) else "image/jpeg"
        stream.log(f"cameras/{camera}", rr.EncodedImage(contents=data, media_type=kind), strict=True)


def _instant(time_ns: int) -> np.datetime64:
    return np.datetime64(int(time_ns), "ns")
