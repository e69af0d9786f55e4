"""One slot between two threads: a callback puts, a worker takes, and only the newest value counts."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Thread-safe slot for one value. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._value: T | None = None
        self._full = False
        self._overwritten = 0

    @property
    def overwritten(self) -> int:
        """How many values were replaced before anyone took them."""
        with self._condition:
            return self._overwritten

    def put(self, value: T) -> None:
        """Stores a value; one that was not taken yet is lost and counted."""
        with self._condition:
            self._overwritten += self._full
            self._value, self._full = value, True
            self._condition.notify()

    def take(self, timeout_s: float = 0.0) -> T | None:
        """Empties the slot and returns its value, or None if nothing comes within ``timeout_s``."""
        with self._condition:
            self._condition.wait_for(lambda: self._full, timeout_s)
            value, self._value, self._full = self._value, None, False
            return value
