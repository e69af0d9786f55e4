"""Records a running graph into MCAP bags, one per episode or one per activation."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rclpy.clock import Clock, ClockType
from rclpy.serialization import deserialize_message
from std_msgs.msg import String

from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.errors import DitPolicyError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.episode_state import EpisodeState
from dit_policy_ros.ros.lifecycle import ManagedNode
from dit_policy_ros.ros.parameters import parameter
from dit_policy_ros.ros.process import run_node
from dit_policy_ros.ros.topics import MARKERS, Topic, marker_topic, recorded_topics

IDLE_S = 0.05
QUEUE_LENGTH = 20_000
SEARCH_PERIOD_S = 0.2


@dataclass(frozen=True)
class RecorderOptions:
    """Parameters of ``recorder_node``."""

    robot: str = parameter("aloha", "Robot description: a name in config/robots, or a path to a YAML file.")
    directory: str = parameter("bags", "Folder for bags; made if missing.")
    per_episode: bool = parameter(False, "A bag for every episode that sim_node announces, and none in between.")


@dataclass(frozen=True)
class _Heard:
    """One message as it came."""

    topic: Topic
    name: str
    """Full name of the topic."""
    log_ns: int
    cdr: bytes


class RecorderNode(ManagedNode):
    """Callbacks queue serialised messages, one thread writes them."""

    OPTIONS = RecorderOptions

    def __init__(self, name: str = "recorder_node", **kwargs) -> None:
        super().__init__(name, **kwargs)
        self._search = None
        """Timer, until somebody publishes episode markers."""

    def configure(self) -> None:
        """Subscribes to everything; to episode markers as soon as there are any."""
        self._robot = load_robot(self.options.robot)
        self._directory = Path(self.options.directory)
        self._queue: deque[_Heard] = deque(maxlen=QUEUE_LENGTH)
        self._arrived = threading.Event()
        self._latched: dict[str, _Heard] = {}
        for topic in recorded_topics(self._robot):
            name = self.resolve_topic_name(topic.name)
            profile = qos.STATUS if topic.is_burst else qos.LATCHED if topic.is_latched else qos.RECORD
            self.listen_to(topic.type, topic.name, partial(self._store, topic, name), profile, raw=True)
        if marker_topic(self._robot):
            clock = Clock(clock_type=ClockType.STEADY_TIME)
            self._search = self.create_timer(SEARCH_PERIOD_S, self._find_marker, clock=clock)

    def cleanup(self) -> None:
        """Ends the search for markers."""
        if self._search is not None:
            self.destroy_timer(self._search)
            self._search = None

    def activate(self) -> None:
        """Starts recording."""
        self._writer: EpisodeWriter | None = None
        self._episode: EpisodeState | None = None
        self._written = self._bags = 0
        self._queue.clear()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise DitPolicyError(f"Cannot make the bag folder {self._directory}: {problem}.") from problem
        self.start_worker("record", self._work, self._leave)

    def measure(self) -> dict[str, object]:
        """Returns how much was written."""
        return {"bags": self._bags, "messages": self._written, "queued": len(self._queue)}

    def _store(self, topic: Topic, name: str, cdr: bytes) -> None:
        heard = _Heard(topic, name, self.now_ns(), bytes(cdr))
        if topic.is_latched:
            self._latched[name] = heard
        self._queue.append(heard)
        self._arrived.set()

    def _find_marker(self) -> None:
        """Subscribes to the episode markers once somebody publishes them, because only then their type is known."""
        name = self.resolve_topic_name(marker_topic(self._robot))
        reason = ""
        for publisher in self.get_publishers_info_by_topic(name):
            kind = MARKERS.get(publisher.topic_type)
            if kind is None:
                reason = f"{name} carries {publisher.topic_type}; markers are {' or '.join(MARKERS)}."
                continue
            profile = qos.fitting(publisher.qos_profile)
            topic = Topic(name, kind, is_latched=profile is qos.STATUS)
            self.listen_to(kind, name, partial(self._store, topic, name), profile, raw=True)
            self._search.cancel()
            reason = ""
            break
        self.problems.tell("episode markers", reason)

    def _work(self) -> None:
        if not self._arrived.wait(IDLE_S):
            return
        now_ns = self.now_ns()
        if now_ns == 0:  # simulated time has not begun
            time.sleep(IDLE_S)
            return
        self._arrived.clear()
        self._guard(lambda: self._drain(now_ns))

    def _leave(self) -> None:
        self._guard(lambda: self._drain(self.now_ns()))
        self._guard(self._finish)

    def _guard(self, step: Callable[[], None]) -> None:
        """A full disk ends the bag, not the node; what is whole in the bag can be recovered."""
        try:
            step()
            self.problems.tell("recording", "")
        except (DitPolicyError, OSError) as problem:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.__exit__(type(problem), problem, None)
            self.problems.tell("recording", f"{problem} The bag was abandoned.")

    def _drain(self, now_ns: int) -> None:
        if self._writer is None and not self.options.per_episode:
            self._begin("run", now_ns)
        while self._queue:
            self._take(self._queue.popleft(), now_ns)

    def _take(self, heard: _Heard, now_ns: int) -> None:
        if heard.topic.name == "episode":
            self._follow(EpisodeState.from_json(deserialize_message(heard.cdr, String).data), now_ns, heard)
        if self._writer is not None:
            self._write(dataclasses.replace(heard, log_ns=heard.log_ns or now_ns))

    def _follow(self, episode: EpisodeState, now_ns: int, heard: _Heard) -> None:
        """Ends the bag of an old episode and begins one for a new one."""
        is_new = self._episode is None or self._episode.start_ns != episode.start_ns
        if is_new and self.options.per_episode:
            self._finish()
            self._begin(f"{episode.world}_{episode.seed}", now_ns, heard)
        self._episode = episode

    def _begin(self, name: str, now_ns: int, taken: _Heard | None = None) -> None:
        """Begins a bag with what is latched; ``taken`` and what is queued come after it anyway."""
        index = 0
        while any((self._directory / f"{name}_{index:03d}{suffix}").exists() for suffix in ("", ".writing")):
            index += 1
        path = self._directory / f"{name}_{index:03d}"
        self._writer = EpisodeWriter(path, self._robot).__enter__()
        self.get_logger().info(f"Recording {path}.")
        coming = {id(heard) for heard in (*self._queue, taken)}
        for heard in [heard for heard in self._latched.values() if id(heard) not in coming]:
            self._write(dataclasses.replace(heard, log_ns=now_ns))

    def _write(self, heard: _Heard) -> None:
        kind = heard.topic.type
        name = f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"
        self._writer.serialized(heard.name, name, heard.log_ns, heard.cdr, heard.topic.is_latched)
        self._written += 1

    def _finish(self) -> None:
        """Completes the bag, with what is known of the episode in its metadata."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        instruction = self._latched.get(self.resolve_topic_name(self._robot.instruction_topic))
        text = deserialize_message(instruction.cdr, String).data if instruction else ""
        metadata = EpisodeMetadata(robot=self._robot.name, instruction=text)
        if self._episode is not None:
            episode = self._episode
            outcome = "strict" if episode.strict else "sticky" if episode.sticky else "failure"
            metadata = dataclasses.replace(metadata, world=episode.world, seed=episode.seed, outcome=outcome)
        writer.metadata = dataclasses.replace(writer.metadata, **_known(metadata))
        writer.__exit__(None, None, None)
        self._bags += 1


def _known(metadata: EpisodeMetadata) -> dict[str, object]:
    return {name: value for name, value in dataclasses.asdict(metadata).items() if value not in ("", None)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the node as a process."""
    return run_node(RecorderNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
