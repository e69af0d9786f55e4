"""Diagnostics of a node as a message: level, one line for people, and measured quantities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass(frozen=True)
class Status:
    """How a node, or a part of it, is."""

    level: bytes = OK
    message: str = "ok"
    values: Mapping[str, object] = field(default_factory=dict)
    """Measured quantities by name; a unit belongs into the name."""


def diagnostics_message(statuses: Mapping[str, Status], stamp: Time) -> DiagnosticArray:
    """Makes the message of one node.

    Args:
        statuses: full name of the node, and "<node>: <part>" of its parts.
    """
    message = DiagnosticArray(status=[_item(name, status) for name, status in statuses.items()])
    message.header.stamp = stamp
    return message


def _item(name: str, status: Status) -> DiagnosticStatus:
    values = [KeyValue(key=key, value=_text(value)) for key, value in status.values.items()]
    return DiagnosticStatus(level=status.level, name=name, message=status.message, hardware_id="", values=values)


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
