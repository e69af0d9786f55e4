"""Quality of service of every kind of topic here.

A best-effort subscriber hears reliable and best-effort publishers alike; trajectory controllers subscribe with the
system default, which a reliable, volatile publisher always matches.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(reliability: ReliabilityPolicy, durability: DurabilityPolicy, depth: int) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability)


SENSOR = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 5)
"""Cameras and joint states."""
NEWEST = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 1)
"""Streams of which only the newest value counts, and the clock."""
IMAGE = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 1)
"""Images as published: a best-effort subscriber loses nothing by it, and a reliable one hears them at all."""
COMMANDS_IN = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 16)
"""Commands as received by a simulated controller, which judges every one."""
COMMAND = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 1)
"""Commands, chunks, contexts and plans."""
LATCHED = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, 1)
"""What a late joiner must still learn: instruction, e-stop, episode, status."""
STATUS = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, 32)
"""States and events, of which a burst may come and none should be lost. A late joiner that wants the newest only asks
for a depth of one."""
DIAGNOSTICS = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 10)
EVENT = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 32)
"""Rare messages, none of which should be lost."""
RECORD = _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 100)
"""Everything a recorder hears, with room for a slow disk."""


def fitting(offered: QoSProfile) -> QoSProfile:
    """Returns how to hear all that a publisher of rare messages offers."""
    if offered.durability == DurabilityPolicy.TRANSIENT_LOCAL:
        return STATUS
    return EVENT if offered.reliability == ReliabilityPolicy.RELIABLE else RECORD
