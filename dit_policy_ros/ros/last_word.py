"""The stop that a deactivation ends with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from dit_policy_ros.ros.outputs.lines import Lines
from dit_policy_ros.runtime.executor import Executor
from dit_policy_ros.types import Trajectory, seconds

LONGEST_S = 3.0
"""It is over after so long, whatever the arms do."""
LOOK_S = 0.3
"""The joints have so long after the end of a stop to show that the controllers took it."""


class LastWord:
    """Sends a stop, and again where the joints say that it was not taken."""

    def __init__(
        self,
        executor: Executor,
        lines: Lines,
        command: Callable[[Sequence[Trajectory], int], None],
        hear: Callable[[], int],
        period_s: float,
    ) -> None:
        """Sends nothing yet.

        Args:
            command: sends at an instant, [ns].
            hear: gives the executor the joint states that have arrived, and returns the present instant, [ns].
            period_s: of control.
        """
        self._executor, self._lines = executor, lines
        self._command, self._hear, self._period_s = command, hear, period_s

    def say(self, sent: Sequence[Trajectory], now_ns: int) -> int:
        """Returns how often the stop was sent again."""
        again, last_s = 0, time.monotonic() + LONGEST_S
        until_s = self._send(sent, now_ns)
        while self._executor.doubts_stop and time.monotonic() < min(until_s, last_s):
            time.sleep(self._period_s)
            now_ns = self._hear()
            sent = self._executor.stop_again(now_ns)
            if sent:
                again += 1
                until_s = self._send(sent, now_ns)
        return again

    def _send(self, sent: Sequence[Trajectory], now_ns: int) -> float:
        """Sends, and waits until the controllers have it; returns by when the joints must show it, monotonic [s]."""
        end_ns = max((int(trajectory.times_ns[-1]) for trajectory in sent), default=now_ns)
        begin_s = time.monotonic()
        self._command(sent, now_ns)
        self._lines.flush()
        if self._lines.stream and sent:
            while self._hear() <= end_ns and time.monotonic() - begin_s < LONGEST_S:
                time.sleep(self._period_s)
                self._command((), self._hear())
            self._lines.flush()
        return begin_s + seconds(end_ns - now_ns) + LOOK_S
