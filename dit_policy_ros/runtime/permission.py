"""Who allows motion: e-stop, enable switch, dead man's switch, pause, other commanders. Each veto has a name."""

from __future__ import annotations

from enum import Enum

from dit_policy_ros.types import seconds


class Veto(Enum):
    """Why nothing may move, most pressing first. The value is the first clause of the reason."""

    E_STOP = "e-stop"
    COMMANDER = "another commander"
    CONTROLLER = "controller silent"
    DISABLED = "disabled"
    DEAD_MAN = "dead man's switch"
    SPEED = "speed zero"
    ARMS = "no arm"
    SWITCHING = "switching an arm"
    STOPPED = "stopped"
    PAUSED = "paused"


class Permission:
    """All vetoes. Motion is allowed while there is none.

    Only a reset lifts an e-stop, and it leaves a pause behind: lifting it must not itself start a motion.
    """

    def __init__(self, autostart: bool, enable_timeout_s: float = 0.0) -> None:
        """Makes the vetoes of a node that was just activated.

        Args:
            autostart: whether motion is allowed without a call of ``start``.
            enable_timeout_s: 0 takes the newest word on ``enable``, and none for yes; above 0 a yes counts for this
                long only, as of a switch that a person holds down.
        """
        self.autostart = autostart
        self.enable_timeout_s = enable_timeout_s
        self.speed = 1.0
        """0..1."""
        self.arm_vetoes: dict[Veto, str] = {}
        """Set by the supervisor while arms are switched on or off."""
        self._e_stop = ""
        self._pressed: set[str] = set()
        self._now_ns = 0
        self.begin()

    def begin(self) -> None:
        """Forgets all but the e-stop and the speed, as at an activation."""
        self._enabled = True
        self._yes_ns: int | None = None
        self._commander = self._controller = self._pause = ""
        self._stop = "" if self.autostart else "call start"

    def inherit(self, before: Permission) -> None:
        """Takes over the e-stop of an earlier configuration: only a reset lifts it."""
        self._e_stop, self._pressed = before._e_stop, before._pressed

    def press(self, source: str) -> None:
        """Latches the e-stop; ``source`` stays pressed until released."""
        self._pressed.add(source)
        self._e_stop = self._e_stop or source

    def release(self, source: str) -> None:
        """The source asks for a stop no more; the latch stays."""
        self._pressed.discard(source)

    def reset(self) -> str:
        """Lifts the e-stop and pauses; returns '' or why not."""
        if self._pressed:
            return f"the e-stop is still pressed: {', '.join(sorted(self._pressed))}; release it first"
        if self._e_stop:
            self._e_stop, self._pause = "", "the e-stop was reset; call start"
        return ""

    def enable(self, allowed: bool, steady_ns: int) -> None:
        """Takes a word of the enable switch."""
        self._enabled = allowed
        self._yes_ns = steady_ns if allowed else None

    def commander(self, text: str, moving: bool) -> None:
        """Tells who else commands the controllers, '' for nobody. One that appears during motion leaves a pause."""
        if text and moving and not self._commander:
            self.pause(f"{text} appeared; remove it and call start")
        self._commander = text

    def controllers(self, silent: str) -> None:
        """Tells which controller does not say that it is there, '' for none."""
        self._controller = silent

    def pause(self, reason: str) -> None:
        """Holds until ``start``."""
        self._pause = reason

    def stop(self, reason: str) -> None:
        """Holds and commands nothing any more until ``start``."""
        self._stop = reason

    def start(self) -> str:
        """Ends pause and stop; returns '' or what still forbids motion."""
        vetoes = {veto: text for veto, text in self.vetoes().items() if veto not in (Veto.PAUSED, Veto.STOPPED)}
        if vetoes:
            return _text(*next(iter(vetoes.items())))
        self._pause = self._stop = ""
        return ""

    def watch(self, steady_ns: int) -> None:
        """Tells the time; to be called once per control period."""
        self._now_ns = steady_ns

    def vetoes(self) -> dict[Veto, str]:
        """Returns every present veto with what to do about it, most pressing first."""
        found = {
            Veto.E_STOP: self._e_stop and f"by {self._e_stop}; release it, then call reset and start",
            Veto.COMMANDER: self._commander,
            Veto.CONTROLLER: self._controller,
            Veto.DISABLED: "" if self._enabled else "publish true on enable",
            Veto.DEAD_MAN: self._dead_man(),
            Veto.SPEED: "" if self.speed > 0.0 else "publish more than 0 on speed",
            Veto.STOPPED: self._stop,
            Veto.PAUSED: self._pause,
            **self.arm_vetoes,
        }
        return {veto: found[veto] for veto in Veto if found.get(veto)}

    def reason(self) -> str:
        """Returns the most pressing veto as text, '' where motion is allowed."""
        return next((_text(veto, text) for veto, text in self.vetoes().items()), "")

    def _dead_man(self) -> str:
        if self.enable_timeout_s <= 0.0 or not self._enabled:
            return ""
        if self._yes_ns is None:
            return "hold it down: publish true on enable again and again"
        age_s = seconds(self._now_ns - self._yes_ns)
        if age_s <= self.enable_timeout_s:
            return ""
        return f"let go: no true on enable for {age_s:.2f} s (limit {self.enable_timeout_s:g} s)"


def _text(veto: Veto, text: str) -> str:
    return f"{veto.value}: {text}"
