"""A replay as a bag that Foxglove opens with the shipped layout: what was recorded, and what the policy made of it.

Topics and types are those of the live graph: chunks on /chunk, interventions and states on /executor_node/status, the
age of the context in /diagnostics.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_reader import Episode
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.evaluate.replay import ReplayResult
from dit_policy_ros.types import ActionChunk, Trajectory, nanoseconds

CHUNK_TOPIC, STATUS_TOPIC, DIAGNOSTICS_TOPIC = "/chunk", "/executor_node/status", "/diagnostics"
_OURS = {CHUNK_TOPIC, STATUS_TOPIC, DIAGNOSTICS_TOPIC}
_DIAGNOSTICS_EVERY = 5

_Entry = tuple[int, str, str, bytes]
"""Log time [ns], topic, type, CDR."""


def write_watch_bag(path: Path, episode: Episode, result: ReplayResult, chunks: Iterable[ActionChunk]) -> Path:
    """Writes a rosbag2 folder with an MCAP file and returns its path.

    Args:
        chunks: in the order in which they were made.

    Raises:
        BagError: the folder exists, or the recording breaks off.
    """
    with EpisodeWriter(path, episode.robot, episode.metadata) as writer:
        streams = (_recorded(episode), _chunks(chunks), _statuses(result), _diagnostics(result))
        for log_ns, topic, msgtype, cdr in heapq.merge(*streams, key=lambda entry: entry[0]):
            writer.serialized(topic, msgtype, log_ns, cdr, latched=msgtype == messages.STRING)
    return path


def _recorded(episode: Episode) -> Iterator[_Entry]:
    known = messages.typestore().fielddefs
    topics = {topic for topic, kind in episode.bag.topics.items() if kind in known and topic not in _OURS}
    for topic, log_ns, cdr in episode.bag.messages(topics):
        yield log_ns, topic, episode.bag.topics[topic], cdr


def _chunks(chunks: Iterable[ActionChunk]) -> Iterator[_Entry]:
    for chunk in chunks:
        message = messages.joint_trajectory(Trajectory(chunk.names, chunk.times_ns, chunk.actions))
        message.header.frame_id = (
            f"observation_ns={chunk.observation_ns} context_ns={chunk.context_ns} "
            f"epoch={chunk.epoch} committed={chunk.committed}"
        )
        yield chunk.observation_ns, CHUNK_TOPIC, messages.JOINT_TRAJECTORY, _cdr(message, messages.JOINT_TRAJECTORY)


def _statuses(result: ReplayResult) -> Iterator[_Entry]:
    for entry in result.interventions:
        text = messages.string(f"{entry.kind}: {entry.text}")
        log_ns = result.start_ns + nanoseconds(entry.time_s)
        yield log_ns, STATUS_TOPIC, messages.STRING, _cdr(text, messages.STRING)


def _diagnostics(result: ReplayResult) -> Iterator[_Entry]:
    times_ns = result.start_ns + np.round(result.times_s * 1e9).astype(np.int64)
    for k in range(0, len(times_ns), _DIAGNOSTICS_EVERY):
        age_s = float(result.context_ages_s[k])
        values = {"context age_s": f"{age_s:.3f}" if np.isfinite(age_s) else "none"}
        message = messages.diagnostics(int(times_ns[k]), "replay: executor", result.mode, values)
        yield int(times_ns[k]), DIAGNOSTICS_TOPIC, messages.DIAGNOSTICS, _cdr(message, messages.DIAGNOSTICS)


def _cdr(message: Any, msgtype: str) -> bytes:
    return bytes(messages.typestore().serialize_cdr(message, msgtype))
