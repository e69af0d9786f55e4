"""How long threads wait for a processor, by the kernel's own account: what is late then is not the program's doing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from dit_policy_ros.types import NS_PER_S


def waits_s(processes: Iterable[int]) -> dict[tuple[int, str], float]:
    """Returns (process, thread) to the time that the thread was ready to run and did not, since it began, [s].

    From /proc/PID/task/TID/schedstat; empty where the kernel keeps no account.
    """
    waits = {}
    for process in processes:
        for account in Path(f"/proc/{process}/task").glob("*/schedstat"):
            try:
                waits[process, account.parent.name] = int(account.read_text().split()[1]) / NS_PER_S
            except (OSError, IndexError):
                continue  # The thread ended meanwhile.
    return waits


def longest_s(before: Mapping[tuple[int, str], float], after: Mapping[tuple[int, str], float]) -> float | None:
    """Returns the longest that one thread waited between two accounts, None where there is no thread in both."""
    return max((after[thread] - before[thread] for thread in before.keys() & after.keys()), default=None)
