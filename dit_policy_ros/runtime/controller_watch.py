"""Watches what controllers say of themselves: one that falls silent does not follow what it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dit_policy_ros.controllers import Controller
from dit_policy_ros.types import seconds


class ControllerWatch:
    """Of those controllers that have a ``max_state_age_s``."""

    def __init__(self, controllers: Sequence[Controller]) -> None:
        """Watches from the first call of ``silent`` on."""
        self.controllers = tuple(controller for controller in controllers if controller.max_state_age_s > 0.0)
        self._stamps: dict[str, int] = {}
        self._seen: dict[str, tuple[int | None, int]] = {}

    def restart(self) -> None:
        """Gives every controller its full time again."""
        self._seen.clear()

    def hear(self, name: str, stamp_ns: int) -> None:
        """Notes a word of a controller, from any thread; the same stamp again is silence."""
        self._stamps[name] = stamp_ns

    def silent(self, steady_ns: int, mutes: Callable[[Sequence[str]], bool]) -> str:
        """Returns '' or which controller is silent and for how long; to be called once per control period.

        Args:
            steady_ns: clock of the watchdogs.
            mutes: whether controllers of these joints are switched off, and may be.
        """
        ages = self._ages_ns(steady_ns)
        for controller in self.controllers:
            age_s, limit_s = seconds(ages[controller.name]), controller.max_state_age_s
            if age_s > limit_s and not mutes(controller.joints):
                return f"{controller.name} has said nothing for {age_s:.3f} s (limit {limit_s:g} s); is it active?"
        return ""

    def _ages_ns(self, steady_ns: int) -> Mapping[str, int]:
        ages = {}
        for controller in self.controllers:
            stamp_ns = self._stamps.get(controller.name)
            if controller.name not in self._seen or self._seen[controller.name][0] != stamp_ns:
                self._seen[controller.name] = (stamp_ns, steady_ns)
            ages[controller.name] = steady_ns - self._seen[controller.name][1]
        return ages
