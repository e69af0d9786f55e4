"""What went wrong in the two loops, counted by name."""

from __future__ import annotations

from collections import Counter

ENCODE_OVERRUN = "overrun: encode"
"""An encode took longer than the configured period."""
ACT_OVERRUN = "overrun: act"
"""A chunk came later than the next one should have been begun."""
MISSED_DEADLINE = "missed deadline"
"""A chunk came when the one before it had ended."""
SHORT_PREFIX = "prefix too short"
"""More was executed before a chunk came than it was told."""
OLD_EPOCH = "old epoch"
"""A result was dropped, because instruction or world had changed meanwhile."""
CLOCK_JUMP = "clock jumped back"
"""The observations began anew, as in a bag that loops."""
CLOCK_AHEAD = "clock jumped ahead"
"""No time passed between two rounds of an idle loop and yet the clock went on; or the process was held up."""
STALE = "no observation"
"""An inference was due and had nothing to look at; the reason follows."""
FAILED = "inference failed"
"""The policy refused its inputs or broke."""

Incidents = Counter[str]
"""Name to number."""


def count_stale(incidents: Incidents, reason: str) -> None:
    """Counts a missing observation by its reason up to the colon."""
    incidents[f"{STALE}: {reason.partition(':')[0]}"] += 1
