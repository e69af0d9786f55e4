"""ROS times and durations as integer nanoseconds."""

from __future__ import annotations

from builtin_interfaces.msg import Duration, Time

from dit_policy_ros.types import NS_PER_S


def time_to_ns(stamp: Time | Duration) -> int:
    """Returns a stamp or duration in [ns]."""
    return stamp.sec * NS_PER_S + stamp.nanosec


def ns_to_time(time_ns: int) -> Time:
    """Returns a stamp message from [ns]."""
    sec, nanosec = divmod(int(time_ns), NS_PER_S)
    return Time(sec=sec, nanosec=nanosec)


def ns_to_duration(duration_ns: int) -> Duration:
    """Returns a duration message from [ns]."""
    sec, nanosec = divmod(int(duration_ns), NS_PER_S)
    return Duration(sec=sec, nanosec=nanosec)
