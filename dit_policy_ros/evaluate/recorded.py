"""A live episode, from the bag that ``recorder_node`` made of it, as a report shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from dit_policy_ros.actions.smoothness import arms_of
from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_reader import Episode
from dit_policy_ros.errors import BagError
from dit_policy_ros.evaluate.live import Received, live_context_wait, live_smoothness, stages_of
from dit_policy_ros.evaluate.record import EpisodeRecord
from dit_policy_ros.types import ActionChunk, nanoseconds, seconds

STEP_S = 0.02
CHUNK_TOPIC, CONTEXT_TOPIC = "/chunk", "/context"
STATUS_TOPIC, EPISODE_TOPIC = "/executor_node/status", "/sim_node/episode"
MAX_REWARD = 4
PLAN_TOPIC, DIAGNOSTICS_TOPIC = "/executor_node/plan", "/diagnostics"
_PROVENANCE = re.compile(r"observation_ns=(\d+) context_ns=(\d+) epoch=(\d+) committed=(\d+)")


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
    contexts = _contexts(episode)
    plans = [received.chunk for received in _chunks(episode, PLAN_TOPIC)]
    commanded = _commanded(episode, times_ns)
    events = [
        (received_ns, message.data)
        for received_ns, message in _messages(episode, STATUS_TOPIC)
        if start_ns <= received_ns <= end_ns
    ]
    context_stamps = [(received.received_ns, received.chunk.context_ns) for received in chunks]
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
        commanded=commanded,
        measured=episode.joints.positions_at(times_ns),
        context_ages_s=(times_ns - _newest(times_ns, context_stamps, np.nan)) * 1e-9,
        splice_times_s=np.array([seconds(chunk.received_ns - start_ns) for chunk in chunks]),
        events=tuple((seconds(received_ns - start_ns), text) for received_ns, text in events),
        encodes=len(contexts),
        chunks=len(chunks),
        latencies_s={
            "observation to chunk": np.array([seconds(c.received_ns - c.chunk.observation_ns) for c in chunks]),
            "observation to context": np.array([seconds(received - stamp) for received, stamp in contexts]),
        },
        context_wait=live_context_wait(chunks, events, end_ns),
        smoothness=live_smoothness(chunks, plans, times_ns, commanded, arms_of(episode.robot)),
        stages_ms=stages_of(s for _, message in _messages(episode, DIAGNOSTICS_TOPIC) for s in message.status),
        video=video,
        bag=bag,
    )


def trace_of(episode: Episode) -> dict[str, tuple[float, ...]]:
    """Returns the delays of a live episode in the order in which they came, for ``delays.delays_ns``, [s]."""
    contexts = _contexts(episode)
    return {
        "context": tuple(seconds(received_ns - stamp_ns) for received_ns, stamp_ns in contexts),
        "action": tuple(seconds(chunk.received_ns - chunk.chunk.observation_ns) for chunk in _chunks(episode)),
    }


def _messages(episode: Episode, topic: str) -> Iterator[tuple[int, Any]]:
    """Yields (time of receipt [ns], message); nothing if the topic was not recorded."""
    for _, received_ns, cdr in episode.bag.messages([topic]):
        yield received_ns, messages.typestore().deserialize_cdr(cdr, episode.bag.topics[topic])


def _contexts(episode: Episode) -> list[tuple[int, int]]:
    """(received [ns], stamp [ns]) of every context; one without tensors only announces an epoch."""
    found = []
    for received_ns, message in _messages(episode, CONTEXT_TOPIC):
        data = bytes(message.data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        if header.keys() - {"__metadata__"}:
            found.append((received_ns, messages.stamp_ns(message)))
    return found


def _chunks(episode: Episode, topic: str = CHUNK_TOPIC) -> Iterator[Received]:
    """Yields chunks, or plans of the executor, in the robot's order of joints."""
    for received_ns, message in _messages(episode, topic):
        if len(message.points) < 2:  # An empty plan: nothing is planned.
            continue
        found = _PROVENANCE.match(message.header.frame_id)
        if found is None:
            raise BagError(f"{episode.bag.path}: a chunk lacks its provenance; it was recorded by another program.")
        observation_ns, context_ns, epoch, committed = (int(group) for group in found.groups())
        offsets_ns = [messages.duration_ns(point.time_from_start) for point in message.points[:2]]
        columns = [message.joint_names.index(name) for name in episode.robot.names]
        chunk = ActionChunk(
            names=episode.robot.names,
            start_ns=messages.stamp_ns(message) + offsets_ns[0],
            step_ns=offsets_ns[1] - offsets_ns[0],
            actions=np.array([point.positions for point in message.points])[:, columns],
            observation_ns=observation_ns,
            context_ns=context_ns,
            epoch=epoch,
            committed=committed,
        )
        yield Received(received_ns, chunk)


def _commanded(episode: Episode, times_ns: np.ndarray) -> np.ndarray:
    """What the controllers were asked for, (T, J); NaN before their first command."""
    sent_ns = [commands[0].sent_ns if commands else None for commands in episode.commands.values()]
    if None in sent_ns:
        return np.full((len(times_ns), len(episode.robot.names)), np.nan)
    commanded = episode.targets_at(times_ns)
    commanded[times_ns < max(sent_ns)] = np.nan
    return commanded


def _newest(times_ns: np.ndarray, known: list[tuple[int, float]], before: float) -> np.ndarray:
    """The newest of some (instant [ns], value) at each time, (T,) float64; ``before`` the first one."""
    values = np.array([before, *(value for _, value in known)], dtype=np.float64)
    return values[np.searchsorted(np.array([instant for instant, _ in known]), times_ns, side="right")]
