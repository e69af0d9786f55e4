"""Contexts as one standard message: safetensors bytes, with instruction and epoch as their metadata."""

from __future__ import annotations

import array
import json

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save
from sensor_msgs.msg import CompressedImage

from dit_policy_ros.errors import RobotError
from dit_policy_ros.ros.conversions.stamps import ns_to_time, time_to_ns
from dit_policy_ros.types import Context

FORMAT = "safetensors; dit_policy_ros/context"
_HEADER_LENGTH_BYTES = 8


def context_to_message(context: Context, sent_ns: int = 0) -> CompressedImage:
    """Makes a message stamped with the observation behind the context.

    Args:
        sent_ns: ROS clock of now, so that the receiver knows how long it was on its way; 0: unknown.
    """
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in context.tensors.items()}
    metadata = {"instruction": context.instruction, "epoch": str(context.epoch), "sent_ns": str(sent_ns)}
    data = save(tensors, metadata=metadata)
    message = CompressedImage(format=FORMAT)
    message.header.stamp = ns_to_time(context.stamp_ns)
    message.data = array.array("B", data)
    return message


def message_to_context(message: CompressedImage) -> Context:
    """Returns a context.

    Raises:
        RobotError: another format, damaged data, or no instruction or epoch in it.
    """
    if message.format != FORMAT:
        raise RobotError(f"A context has the format '{message.format}'; it must be '{FORMAT}'.")
    data = message.data.tobytes()
    try:
        tensors = load(data)
        metadata = _metadata(data)
        instruction, epoch = str(metadata["instruction"]), int(metadata["epoch"])
    except (SafetensorError, KeyError, ValueError, TypeError) as problem:
        text = f"{type(problem).__name__}: {problem}"
        raise RobotError(
            f"A context of {len(data)} bytes cannot be read ({text}); it was damaged on the way."
        ) from None
    return Context(time_to_ns(message.header.stamp), instruction, epoch, tensors)


def sent_ns_of(message: CompressedImage) -> int:
    """Returns when a readable context was sent, on the sender's ROS clock, [ns]; 0 where it does not say."""
    return int(_metadata(message.data.tobytes()).get("sent_ns", 0))


def _metadata(data: bytes) -> dict[str, str]:
    """Reads the metadata, which the safetensors library gives only for files (format: length, JSON header, tensors)."""
    length = int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
    header = json.loads(data[_HEADER_LENGTH_BYTES : _HEADER_LENGTH_BYTES + length])
    return header.get("__metadata__", {})
