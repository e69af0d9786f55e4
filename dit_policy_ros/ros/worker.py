"""A thread that does one job again and again, and never dies unheard."""

from __future__ import annotations

import threading
from collections.abc import Callable

JOIN_TIMEOUT_S = 30.0


class Worker:
    """Calls ``work`` in its own thread until stopped."""

    def __init__(
        self,
        name: str,
        work: Callable[[], None],
        died: Callable[[str, Exception], None],
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        """Does not start the thread yet.

        Args:
            name: of the thread and in errors.
            work: one round; waits for its input at most a tenth of a second, so that a stop is quick.
            died: told the name and the exception that ended the thread.
            leave: called once after a stop, in the thread.
        """
        self.name = name
        self._work = work
        self._died = died
        self._leave = leave
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> bool:
        """Asks the thread to end and waits; returns whether it did."""
        self._stop.set()
        self._thread.join(JOIN_TIMEOUT_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._work()
            self._leave()
        except Exception as problem:
            self._died(self.name, problem)
