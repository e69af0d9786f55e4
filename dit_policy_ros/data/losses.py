"""Pieces of a recording that cannot be read, and how they are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dit_policy_ros.errors import BagError
from dit_policy_ros.types import seconds

ADVICE = "Copy or record it again; inspect and replay use what is whole."
_MOST_SHOWN = 3


@dataclass(frozen=True)
class Loss:
    """One piece of a storage file."""

    place: str
    """What it is, such as 'a chunk at byte 1048'."""
    first_ns: int | None = None
    """Log time of its first message, or of the last one that was read before it; None where neither is known."""
    last_ns: int | None = None
    """Log time of its last message, or of the first one that was read after it."""
    counts: Mapping[str, int | None] = field(default_factory=dict)
    """Topic to messages, None where their number is not known; empty where the topics are not."""


class LossError(BagError):
    """A piece of a file cannot be read, and was not to be left out."""

    def __init__(self, loss: Loss, origin_ns: int) -> None:
        super().__init__(f"{told([loss], origin_ns)}. {ADVICE}")


def told(
    losses: Sequence[Loss], origin_ns: int, promised: Mapping[str, int] | None = None, whole: Mapping[str, int] = {}
) -> str:
    """Returns what cannot be read, when it was recorded, and on which topics.

    Args:
        losses: at least one.
        origin_ns: times are told in seconds after it, or after the first loss if that is earlier.
        promised: topic to messages, where the bag's metadata tell.
        whole: topic to messages that can be read.
    """
    topics = _topics(losses, promised, whole)
    return f"{_few([loss.place for loss in losses])} cannot be read ({_times(losses, origin_ns)}: {topics})"


def _times(losses: Sequence[Loss], origin_ns: int) -> str:
    """Returns spans of time, those that touch put together."""
    spans = [(loss.first_ns, loss.last_ns) for loss in losses]
    known = sorted((first_ns, last_ns) for first_ns, last_ns in spans if first_ns is not None and last_ns is not None)
    origin_ns = min([origin_ns, *(at for at, _ in known)])
    joined: list[list[int]] = []
    for first_ns, last_ns in known:
        if joined and first_ns <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], last_ns)
        else:
            joined.append([first_ns, last_ns])
    times = [f"{seconds(a - origin_ns):.2f} s to {seconds(b - origin_ns):.2f} s" for a, b in joined]
    for first_ns, last_ns in dict.fromkeys(spans):
        if last_ns is None:
            times.append("at unknown times" if first_ns is None else f"after {seconds(first_ns - origin_ns):.2f} s")
        elif first_ns is None:
            times.append(f"before {seconds(last_ns - origin_ns):.2f} s")
    return _few(times)


def _topics(losses: Iterable[Loss], promised: Mapping[str, int] | None, whole: Mapping[str, int]) -> str:
    counts: Counter[str] = Counter()
    unsure: set[str] = set()
    for loss in losses:
        unsure |= {topic for topic, count in loss.counts.items() if count is None} if loss.counts else {""}
        counts.update({topic: count or 0 for topic, count in loss.counts.items()})
    if unsure and promised:
        missing = {topic: count - whole.get(topic, 0) for topic, count in promised.items()}
        counts, unsure = Counter({topic: count for topic, count in missing.items() if count > 0}), set()
    numbers = [f"{counts[topic] or 'some'} of {topic}" for topic in sorted(counts)]
    return ", ".join(numbers + (["unknown topics"] if "" in unsure else [])) or "no message"


def _few(texts: Sequence[str]) -> str:
    shown = ", ".join(texts[:_MOST_SHOWN])
    return f"{shown} and {len(texts) - _MOST_SHOWN} more" if len(texts) > _MOST_SHOWN else shown
