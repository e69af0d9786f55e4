"""How regularly the messages of one topic come, from their stamps alone."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.data import messages
from dit_policy_ros.data.quantiles import quantiles
from dit_policy_ros.data.scratch import ScratchTable, passes, reordered
from dit_policy_ros.types import NS_PER_S, seconds

GAP_PERIODS = 2.5
"""An interval this much longer than the median is a gap."""
_DROP_PERIODS = 1.5
MOST_GAPS = 1000
_PRESENCE_BINS = 160


@dataclass(frozen=True)
class Gap:
    """A pause of one stream."""

    start_ns: int
    duration_ns: int


@dataclass(frozen=True)
class Skew:
    """Time of recording minus header stamp, [s]: transport, and what the two clocks differ by."""

    median_s: float
    lowest_s: float
    highest_s: float


@dataclass(frozen=True)
class Stream:
    """One topic. Times are header stamps where all messages have one, else times of recording."""

    topic: str
    msgtype: str
    count: int
    start_ns: int
    end_ns: int
    rate_hz: float
    """Messages per second between the first and the last; 0 for less than two."""
    period_s: float
    """Median interval; 0 for less than two messages."""
    gaps: tuple[Gap, ...]
    """Intervals of more than ``GAP_PERIODS`` periods, longest first; the longest ``MOST_GAPS``."""
    gap_count: int
    """All of them."""
    longest_s: float
    """Longest interval between two messages."""
    dropped: int
    """Messages missing from a regular stream: intervals of n periods lack n - 1. 0 where the stream is irregular."""
    stamped: bool
    """Whether every message has a header stamp."""
    unstamped: int
    """Messages that have a header with an unset stamp."""
    backwards: int
    """Messages stamped earlier than the one before."""
    duplicates: int
    """Messages stamped the same as the one before."""
    skew: Skew | None
    sizes: tuple[tuple[str, int], ...]
    """Of an image stream: ('640x480 rgb8', count), most frequent first."""
    presence: tuple[float, ...]
    """Share of the expected messages in each of equal parts of the bag's time, 0..1."""

    @property
    def is_sensor(self) -> bool:
        """Whether its stamps are instants of measurement; a trajectory's is the instant it begins, or unset."""
        return bool(self.sizes) or self.msgtype == messages.JOINT_STATE


class StreamBuilder:
    """Collects the stamps of one topic, those of a long bag on disk."""

    def __init__(self, topic: str, msgtype: str, has_header: bool) -> None:
        self.topic, self.msgtype, self.has_header = topic, msgtype, has_header
        self.sizes: Counter[str] = Counter()
        self._log_ns, self._stamps_ns = ScratchTable(dtype=np.int64), ScratchTable(dtype=np.int64)
        self._first_ns, self._last_ns = 0, 0
        self._unset = 0

    def add(self, log_ns: int, stamp_ns: int) -> None:
        """Notes a message; ``stamp_ns`` is 0 where there is none."""
        self._first_ns = min(self._first_ns, log_ns) if len(self._log_ns) else log_ns
        self._last_ns = max(self._last_ns, log_ns) if len(self._log_ns) else log_ns
        self._unset += stamp_ns <= 0
        self._log_ns.append(log_ns)
        self._stamps_ns.append(stamp_ns)

    @property
    def span_ns(self) -> tuple[int, int]:
        """First and last time of recording; there must be a message."""
        return self._first_ns, self._last_ns

    def build(self, start_ns: int, end_ns: int) -> Stream:
        """Returns the summary.

        Args:
            start_ns: beginning of the bag, by time of recording.
            end_ns: its end.
        """
        log_ns, stamps_ns = self._log_ns.array(), self._stamps_ns.array()
        stamped = self.has_header and len(stamps_ns) > 0 and not self._unset
        ordered_ns, backwards, duplicates = _ordered(stamps_ns if stamped else log_ns)
        first_ns, last_ns = (int(ordered_ns[0]), int(ordered_ns[-1])) if len(ordered_ns) else (0, 0)
        period_ns, is_steady = _period(ordered_ns)
        gaps, gap_count, longest_ns, dropped = _gaps(ordered_ns, period_ns if is_steady else 0.0)
        return Stream(
            topic=self.topic,
            msgtype=self.msgtype,
            count=len(log_ns),
            start_ns=first_ns,
            end_ns=last_ns,
            rate_hz=(len(ordered_ns) - 1) * NS_PER_S / (last_ns - first_ns) if last_ns > first_ns else 0.0,
            period_s=period_ns / NS_PER_S,
            gaps=gaps,
            gap_count=gap_count,
            longest_s=seconds(longest_ns),
            dropped=dropped,
            stamped=stamped,
            unstamped=self._unset if self.has_header else 0,
            backwards=backwards,
            duplicates=duplicates,
            skew=_skew(log_ns, stamps_ns) if self.has_header else None,
            sizes=tuple(self.sizes.most_common()),
            presence=_presence(log_ns, start_ns, end_ns, period_ns, is_steady),
        )


def _ordered(times_ns: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Returns the instants in order, and how often one was earlier than the one before, or the same."""
    backwards = duplicates = 0
    for steps_ns in _intervals(times_ns):
        backwards += int((steps_ns < 0).sum())
        duplicates += int((steps_ns == 0).sum())
    return reordered(times_ns, np.argsort(times_ns, kind="stable")) if backwards else times_ns, backwards, duplicates


def _intervals(times_ns: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the distances between neighbours, some thousand at a time."""
    last = times_ns[:0]
    for part in passes(times_ns):
        joined = np.concatenate([last, part])
        last = joined[-1:].copy()
        yield np.diff(joined)


def _period(ordered_ns: np.ndarray) -> tuple[float, bool]:
    """Returns the median interval, [ns], and whether most are about as long; events such as instructions are not."""
    positive = ScratchTable(dtype=np.int64)
    for intervals_ns in _intervals(ordered_ns):
        positive.extend(intervals_ns[intervals_ns > 0])
    if not len(positive):
        return 0.0, False
    (period_ns,) = quantiles(positive.array(), [0.5])
    near = sum(int((np.abs(part - period_ns) <= 0.5 * period_ns).sum()) for part in positive.passes())
    return period_ns, len(positive) >= 2 and near > 0.5 * len(positive)


def _gaps(ordered_ns: np.ndarray, period_ns: float) -> tuple[tuple[Gap, ...], int, int, int]:
    """Returns gaps, their number, the longest interval [ns] and the messages missing; a period of 0 has none."""
    found: list[tuple[int, int]] = []
    count = longest_ns = begin = 0
    dropped = 0.0
    for intervals_ns in _intervals(ordered_ns):
        longest_ns = max(longest_ns, int(intervals_ns.max(initial=0)))
        if period_ns:
            late = intervals_ns[intervals_ns > _DROP_PERIODS * period_ns]
            dropped += float((np.round(late / period_ns) - 1).sum())
            long = np.flatnonzero(intervals_ns > GAP_PERIODS * period_ns)
            count += len(long)
            new = ((int(intervals_ns[k]), -int(ordered_ns[begin + k])) for k in long)
            found = heapq.nlargest(MOST_GAPS, [*found, *new])
        begin += len(intervals_ns)
    return tuple(Gap(-start_ns, duration_ns) for duration_ns, start_ns in found), count, longest_ns, int(dropped)


def _skew(log_ns: np.ndarray, stamps_ns: np.ndarray) -> Skew | None:
    differences_ns = ScratchTable(dtype=np.int64)
    for log_part, stamps_part in zip(passes(log_ns), passes(stamps_ns), strict=True):
        differences_ns.extend((log_part - stamps_part)[stamps_part > 0])
    if not len(differences_ns):
        return None
    lowest, median, highest = quantiles(differences_ns.array(), [0.0, 0.5, 1.0])
    return Skew(*(value / NS_PER_S for value in (median, lowest, highest)))


def _presence(log_ns: np.ndarray, start_ns: int, end_ns: int, period_ns: float, is_regular: bool) -> tuple[float, ...]:
    """Counts per bin over the count that the median interval promises; 0 or 1 for events."""
    width_ns = max(end_ns - start_ns, 1) / _PRESENCE_BINS
    counts = np.zeros(_PRESENCE_BINS)
    for part in passes(log_ns):
        bins = np.clip(((part - start_ns) / width_ns).astype(np.int64), 0, _PRESENCE_BINS - 1)
        counts += np.bincount(bins, minlength=_PRESENCE_BINS)
    if not is_regular:
        return tuple(np.minimum(counts, 1.0).tolist())
    if period_ns > width_ns:
        # Slower than the bins: a message stands for its whole period.
        reach = int(np.ceil(period_ns / width_ns))
        window = np.convolve(counts, np.ones(reach))[:_PRESENCE_BINS]
        return tuple(np.minimum(window, 1.0).tolist())
    return tuple(np.round(np.minimum(counts / (width_ns // period_ns), 1.0), 3).tolist())
