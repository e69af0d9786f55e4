"""What services ask of a worker thread, and its answers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

ANSWER_TIMEOUT_S = 2.0


@dataclass
class _Wish:
    """A question on its way to the worker, and the answer on its way back."""

    call: Callable[[], str]
    answer: str = ""
    answered: threading.Event = field(default_factory=threading.Event)


class Wishes:
    """A queue between the ROS thread, which asks and waits, and one worker, which answers once a period."""

    def __init__(self) -> None:
        self._queue: deque[_Wish] = deque()

    def ask(self, call: Callable[[], str]) -> str:
        """Returns what ``call`` returned in the worker, or that it did not answer; then it never will."""
        wish = _Wish(call)
        self._queue.append(wish)
        if wish.answered.wait(ANSWER_TIMEOUT_S):
            return wish.answer
        try:
            self._queue.remove(wish)
        except ValueError:
            return wish.answer if wish.answered.wait(ANSWER_TIMEOUT_S) else "the control loop hangs; see the log"
        return f"the control loop did not answer within {ANSWER_TIMEOUT_S:g} s; see the log"

    def grant(self) -> None:
        """Answers all; called by the worker."""
        while self._queue:
            try:
                wish = self._queue.popleft()
            except IndexError:  # withdrawn a moment ago
                return
            wish.answer = wish.call()
            wish.answered.set()
