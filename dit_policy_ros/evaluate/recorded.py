"""A live episode, from the bag that ``recorder_node`` made of it, as a report shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_reader import Episode
from dit_policy_ros.data.joint_history import interpolate
from dit_policy_ros.errors import BagError
from dit_policy_ros.evaluate.record import EpisodeRecord
from dit_policy_ros.types import nanoseconds, seconds

STEP_S = 0.02
CHUNK_TOPIC, CONTEXT_TOPIC = "/chunk", "/context"
STATUS_TOPIC, EPISODE_TOPIC = "/executor_node/status", "/sim_node/episode"
MAX_REWARD = 4
_PROVENANCE = re.compile(r"observation_ns=(\d+) context_ns=(\d+)")


@dataclass(frozen=True)
class _Chunk:
    """One chunk as it was received."""

    received_ns: int
    observation_ns: int
    context_ns: int
    times_ns: np.ndarray
    actions: np.ndarray
    """(K, J) in the order of the robot's names."""


def from_bag(episode: Episode, video: str = "", bag: str = "") -> EpisodeRecord:
    """Makes a record of an episode that was driven live in simulation.

    Args:
        episode: opened with the robot it was recorded with.
        video: path of its video, relative to the report.
        bag: path of the bag, relative to the report.

    Raises:
        BagError: the bag does not say how the episode went.
    """
    states = [(received_ns, json.loads(message.data)) for received_ns, message in _messages(episode, EPISODE_TOPIC)]
    if not states:
        raise BagError(f"{episode.bag.path} has nothing on {EPISODE_TOPIC}; it is no recording of a simulated episode.")
    final = states[-1][1]
    start_ns = int(final["start_ns"])
    states = [(received_ns, state) for received_ns, state in states if state["start_ns"] == start_ns]
    end_ns = states[-1][0] if final["is_done"] else int(episode.joints.times_ns[-1])
    times_ns = np.arange(start_ns, max(end_ns, start_ns + 1), nanoseconds(STEP_S), dtype=np.int64)
    chunks = [chunk for chunk in _chunks(episode) if start_ns <= chunk.received_ns <= end_ns]
    contexts = [_stamps(received_ns, message) for received_ns, message in _messages(episode, CONTEXT_TOPIC)]
    return EpisodeRecord(
        seed=int(final["seed"]),
        world=str(final["world"]),
        instruction=str(final["instruction"]),
        sticky=bool(final["sticky"]),
        strict=bool(final["strict"]),
        max_reward=MAX_REWARD,
        joint_names=episode.robot.names,
        times_s=(times_ns - start_ns) * 1e-9,
        rewards=_newest(times_ns, [(received_ns, state["reward"]) for received_ns, state in states], 0).astype(
            np.int64
        ),
        commanded=_commanded(episode, times_ns),
        measured=episode.joints.positions_at(times_ns),
        context_ages_s=(times_ns - _newest(times_ns, [(c.received_ns, c.context_ns) for c in chunks], np.nan)) * 1e-9,
        splice_times_s=np.array([seconds(chunk.received_ns - start_ns) for chunk in chunks]),
        seam_jumps=_seams(chunks, len(episode.robot.names)),
        events=tuple(
            (seconds(received_ns - start_ns), message.data)
            for received_ns, message in _messages(episode, STATUS_TOPIC)
            if start_ns <= received_ns <= end_ns
        ),
        encodes=len(contexts),
        chunks=len(chunks),
        latencies_s={
            "observation to chunk": np.array([seconds(c.received_ns - c.observation_ns) for c in chunks]),
            "observation to context": np.array([seconds(received - stamp) for received, stamp in contexts]),
        },
        video=video,
        bag=bag,
    )


def _messages(episode: Episode, topic: str) -> Iterator[tuple[int, Any]]:
    """Yields (time of receipt [ns], message); nothing if the topic was not recorded."""
    for _, received_ns, cdr in episode.bag.messages([topic]):
        yield received_ns, messages.typestore().deserialize_cdr(cdr, episode.bag.topics[topic])


def _stamps(received_ns: int, message: Any) -> tuple[int, int]:
    return received_ns, messages.stamp_ns(message)


def _chunks(episode: Episode) -> Iterator[_Chunk]:
    for received_ns, message in _messages(episode, CHUNK_TOPIC):
        found = _PROVENANCE.match(message.header.frame_id)
        if found is None:
            raise BagError(f"{episode.bag.path}: a chunk lacks its provenance; it was recorded by another program.")
        start_ns = messages.stamp_ns(message)
        offsets_ns = [messages.duration_ns(point.time_from_start) for point in message.points]
        columns = [message.joint_names.index(name) for name in episode.robot.names]
        yield _Chunk(
            received_ns=received_ns,
            observation_ns=int(found.group(1)),
            context_ns=int(found.group(2)),
            times_ns=start_ns + np.array(offsets_ns, dtype=np.int64),
            actions=np.array([point.positions for point in message.points])[:, columns],
        )


def _commanded(episode: Episode, times_ns: np.ndarray) -> np.ndarray:
    """What the controllers were asked for, (T, J); NaN before their first command."""
    sent_ns = [commands[0].sent_ns if commands else None for commands in episode.commands.values()]
    if None in sent_ns:
        return np.full((len(times_ns), len(episode.robot.names)), np.nan)
    commanded = episode.targets_at(times_ns)
    commanded[times_ns < max(sent_ns)] = np.nan
    return commanded


def _seams(chunks: list[_Chunk], width: int) -> np.ndarray:
    """Distance between each chunk and the one before at the instant it was received, (C, J); NaN for the first."""
    jumps = np.full((len(chunks), width), np.nan)
    for row, (before, after) in enumerate(pairwise(chunks), start=1):
        now_ns = np.array([after.received_ns])
        old, new = (interpolate(now_ns, chunk.times_ns, chunk.actions)[0] for chunk in (before, after))
        jumps[row] = np.abs(new - old)
    return jumps


def _newest(times_ns: np.ndarray, known: list[tuple[int, float]], before: float) -> np.ndarray:
    """The newest of some (instant [ns], value) at each time, (T,) float64; ``before`` the first one."""
    values = np.array([before, *(value for _, value in known)], dtype=np.float64)
    return values[np.searchsorted(np.array([instant for instant, _ in known]), times_ns, side="right")]
