"""Messages for /diagnostics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass(frozen=True)
class Status:
    """How a node is."""

    level: bytes = OK
    message: str = "ok"
    values: Mapping[str, object] = field(default_factory=dict)
    """Measured quantities by name; a unit belongs into the name."""


def diagnostics_message(name: str, status: Status, stamp: Time) -> DiagnosticArray:
    """Makes the message of one node."""
    values = [KeyValue(key=key, value=_text(value)) for key, value in status.values.items()]
    item = DiagnosticStatus(level=status.level, name=name, message=status.message, hardware_id="", values=values)
    message = DiagnosticArray(status=[item])
    message.header.stamp = stamp
    return message


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
