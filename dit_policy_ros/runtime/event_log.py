"""What the two loops decided and when: enough to run the same decisions again in virtual time."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass

KINDS = ("encode", "context", "act", "chunk", "failed", "image", "plan", "heard", "instruction")
"""Decisions and results: an encode begins; its context is there; a chunk is begun; it is there; an inference failed.
Inputs: an observation can be made; a plan of the executor is known; a context is heard; an epoch begins."""


@dataclass(frozen=True)
class Event:
    """One decision or its result."""

    kind: str
    stamp_ns: int
    """When it happened, on the ROS clock."""
    observation_ns: int
    """Stamp of the observation it is about."""
    context_ns: int = 0
    """Stamp of the context's observation, where there is one."""
    epoch: int = 0
    committed: int = 0
    """Actions in the committed prefix, or in the plan; of a context 1 for tensors, 2 for tensors with news."""
    step_ns: int = 0
    """Of a plan, whose start is in ``context_ns``."""

    @property
    def delay_ns(self) -> int:
        """Time since the observation."""
        return self.stamp_ns - self.observation_ns


class EventLog:
    """The last events of one loop."""

    def __init__(self, size: int = 4096) -> None:
        self._events: deque[Event] = deque(maxlen=size)

    def __iter__(self):
        """Yields events, oldest first."""
        return iter(tuple(self._events))

    def __len__(self) -> int:
        """Number of events kept."""
        return len(self._events)

    def add(
        self,
        kind: str,
        stamp_ns: int,
        observation_ns: int,
        context_ns: int = 0,
        epoch: int = 0,
        committed: int = 0,
        step_ns: int = 0,
    ) -> None:
        """Notes an event."""
        self._events.append(Event(kind, stamp_ns, observation_ns, context_ns, epoch, committed, step_ns))

    def of(self, kind: str) -> tuple[Event, ...]:
        """Returns the events of a kind, oldest first."""
        return tuple(event for event in self._events if event.kind == kind)

    def decisions(self) -> tuple[Event, ...]:
        """Returns what was decided and what came of it, without the inputs."""
        return tuple(event for event in self._events if event.kind in ("encode", "context", "act", "chunk"))

    def to_list(self) -> list[dict]:
        """Returns what JSON can hold."""
        return [asdict(event) for event in self._events]
