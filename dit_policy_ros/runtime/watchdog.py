"""Watches the joint states on a steady clock."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dit_policy_ros.errors import RobotError
from dit_policy_ros.robot import RobotSpec
from dit_policy_ros.space import gather
from dit_policy_ros.types import seconds


class FeedbackWatch:
    """The newest joint positions, and whether they can be relied on."""

    def __init__(self, spec: RobotSpec):
        self.positions: np.ndarray | None = None
        """Newest valid ones, (J,) in the robot's order."""
        self.stamp_ns: int | None = None
        self.fault = ""
        """'' while the positions can be relied on, as of the last ``watch``."""
        self.invalid = ""
        """'' or what was wrong with the newest message."""
        self._names = spec.names
        self._max_age_s = spec.joint_states_max_age_s
        self._tracking = np.array([joint.tracking_error or np.inf for joint in spec.joints])
        self._is_new = False
        self._seen_steady_ns: int | None = None
        several = spec.measured_topics if len(spec.measured_topics) > 1 else ()
        self._sources = {topic: _Source() for topic in several}

    def restart(self) -> None:
        """Forgets the positions, and gives the joint states their full time to arrive again."""
        self.positions = self.stamp_ns = self._seen_steady_ns = None
        for source in self._sources.values():
            source.seen_steady_ns = None

    def heard(self, topic: str, stamp_ns: int) -> None:
        """Notes a message of one of several topics, so that the one that falls silent can be named."""
        if topic in self._sources:
            self._sources[topic].add(stamp_ns)

    def add(self, stamp_ns: int, positions: Mapping[str, float]) -> str:
        """Takes measured positions by name; returns '' or why they are invalid."""
        try:
            self.positions = gather(positions, self._names)
        except RobotError as problem:
            self.invalid = f"joint states invalid: {problem}"
            return self.invalid
        self.invalid = ""
        # A driver that repeats one stamp has stopped measuring.
        self._is_new = self._is_new or stamp_ns != self.stamp_ns
        self.stamp_ns = stamp_ns
        return ""

    def watch(self, steady_ns: int) -> None:
        """Sets ``fault``; to be called once per control period."""
        if self._is_new or self._seen_steady_ns is None:
            self._is_new, self._seen_steady_ns = False, steady_ns
        age_s, where = seconds(steady_ns - self._seen_steady_ns), ""
        for topic, source in self._sources.items():
            silent_s = seconds(source.silent_ns(steady_ns))
            if silent_s > self._max_age_s and (not where or silent_s > age_s):
                age_s, where = silent_s, f" on {topic}"
        stale = f"joint states stale: none{where} for {age_s:.3f} s (limit {self._max_age_s:g} s)"
        self.fault = self.invalid or (stale if age_s > self._max_age_s else "")

    def off_track(self, reference: np.ndarray) -> str:
        """Returns '' or which joint is too far from where it was told to be when it was measured, (J,)."""
        error = np.abs(self.positions - reference)
        worst = int(np.argmax(error - self._tracking))
        # What cannot be compared is off track.
        if error[worst] <= self._tracking[worst]:
            return ""
        return (
            f"tracking error: {self._names[worst]} is {error[worst]:.3f} from its command "
            f"(limit {self._tracking[worst]:g})"
        )


class _Source:
    """One of several topics."""

    def __init__(self) -> None:
        self.seen_steady_ns: int | None = None
        self._stamp_ns: int | None = None
        self._is_new = False

    def add(self, stamp_ns: int) -> None:
        """Notes a message; a stamp that is repeated is silence."""
        self._is_new = self._is_new or stamp_ns != self._stamp_ns
        self._stamp_ns = stamp_ns

    def silent_ns(self, steady_ns: int) -> int:
        """Returns the time since the last new stamp, or since the watch began."""
        if self._is_new or self.seen_steady_ns is None:
            self._is_new, self.seen_steady_ns = False, steady_ns
        return steady_ns - self.seen_steady_ns
