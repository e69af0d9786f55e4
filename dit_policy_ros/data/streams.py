"""How regularly the messages of one topic come, from their stamps alone."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass

import numpy as np

from dit_policy_ros.data import messages
from dit_policy_ros.types import NS_PER_S, seconds

GAP_PERIODS = 2.5
"""An interval this much longer than the median is a gap."""
_DROP_PERIODS = 1.5
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
    """Intervals of more than ``GAP_PERIODS`` periods, longest first."""
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
    """Collects the stamps of one topic: sixteen bytes a message."""

    def __init__(self, topic: str, msgtype: str, has_header: bool) -> None:
        self.topic, self.msgtype, self.has_header = topic, msgtype, has_header
        self.sizes: Counter[str] = Counter()
        self._log_ns, self._stamps_ns = array("q"), array("q")

    def add(self, log_ns: int, stamp_ns: int) -> None:
        """Notes a message; ``stamp_ns`` is 0 where there is none."""
        self._log_ns.append(log_ns)
        self._stamps_ns.append(stamp_ns)

    @property
    def span_ns(self) -> tuple[int, int]:
        """First and last time of recording; there must be a message."""
        return min(self._log_ns), max(self._log_ns)

    def build(self, start_ns: int, end_ns: int) -> Stream:
        """Returns the summary.

        Args:
            start_ns: beginning of the bag, by time of recording.
            end_ns: its end.
        """
        log_ns, stamps_ns = np.array(self._log_ns, np.int64), np.array(self._stamps_ns, np.int64)
        stamped = self.has_header and len(stamps_ns) > 0 and bool((stamps_ns > 0).all())
        times_ns = stamps_ns if stamped else log_ns
        steps_ns = np.diff(times_ns)
        ordered_ns = np.sort(times_ns)
        intervals_ns = np.diff(ordered_ns)
        positive_ns = intervals_ns[intervals_ns > 0]
        period_ns = float(np.median(positive_ns)) if len(positive_ns) else 0.0
        span_ns = int(ordered_ns[-1] - ordered_ns[0]) if len(ordered_ns) else 0
        rate_hz = (len(ordered_ns) - 1) * NS_PER_S / span_ns if span_ns else 0.0
        regular = len(positive_ns) >= 2 and period_ns > 0 and _is_steady(positive_ns, period_ns)
        long = np.flatnonzero(intervals_ns > GAP_PERIODS * period_ns) if regular else np.empty(0, int)
        gaps = [Gap(int(ordered_ns[k]), int(intervals_ns[k])) for k in long]
        missing = np.round(intervals_ns[intervals_ns > _DROP_PERIODS * period_ns] / period_ns) - 1 if regular else ()
        return Stream(
            topic=self.topic,
            msgtype=self.msgtype,
            count=len(log_ns),
            start_ns=int(ordered_ns[0]) if len(ordered_ns) else 0,
            end_ns=int(ordered_ns[-1]) if len(ordered_ns) else 0,
            rate_hz=rate_hz,
            period_s=period_ns / NS_PER_S,
            gaps=tuple(sorted(gaps, key=lambda gap: (-gap.duration_ns, gap.start_ns))),
            longest_s=seconds(int(intervals_ns.max(initial=0))),
            dropped=int(np.sum(missing)),
            stamped=stamped,
            unstamped=int((stamps_ns == 0).sum()) if self.has_header else 0,
            backwards=int((steps_ns < 0).sum()),
            duplicates=int((steps_ns == 0).sum()),
            skew=_skew((log_ns - stamps_ns)[stamps_ns > 0]) if self.has_header else None,
            sizes=tuple(self.sizes.most_common()),
            presence=_presence(log_ns, start_ns, end_ns, period_ns, regular),
        )


def _is_steady(intervals_ns: np.ndarray, period_ns: float) -> bool:
    """Whether most intervals are about one period; events such as instructions are not."""
    return bool(np.mean(np.abs(intervals_ns - period_ns) <= 0.5 * period_ns) > 0.5)


def _skew(differences_ns: np.ndarray) -> Skew | None:
    if not len(differences_ns):
        return None
    values = (float(np.median(differences_ns)), float(differences_ns.min()), float(differences_ns.max()))
    return Skew(*(value / NS_PER_S for value in values))


def _presence(log_ns: np.ndarray, start_ns: int, end_ns: int, period_ns: float, is_regular: bool) -> tuple[float, ...]:
    """Counts per bin over the count that the median interval promises; 0 or 1 for events."""
    width_ns = max(end_ns - start_ns, 1) / _PRESENCE_BINS
    bins = np.clip(((log_ns - start_ns) / width_ns).astype(np.int64), 0, _PRESENCE_BINS - 1)
    counts = np.bincount(bins, minlength=_PRESENCE_BINS).astype(float)
    if not is_regular:
        return tuple(np.minimum(counts, 1.0).tolist())
    if period_ns > width_ns:
        # Slower than the bins: a message stands for its whole period.
        reach = int(np.ceil(period_ns / width_ns))
        window = np.convolve(counts, np.ones(reach))[:_PRESENCE_BINS]
        return tuple(np.minimum(window, 1.0).tolist())
    return tuple(np.round(np.minimum(counts / (width_ns // period_ns), 1.0), 3).tolist())
