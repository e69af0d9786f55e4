"""Image messages to and from arrays, through the codec that recordings use."""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from dit_policy_ros.data.images import decode_compressed, decode_depth, decode_image, encode_jpeg
from dit_policy_ros.ros.conversions.stamps import ns_to_time


def message_to_rgb(message: Image | CompressedImage) -> np.ndarray:
    """Returns a raw or compressed colour image as RGB, (H, W, 3) uint8.

    Raises:
        RobotError: the encoding is unknown or holds no colours, or the data is damaged.
    """
    if isinstance(message, CompressedImage):
        return decode_compressed(message.data, message.format)
    return decode_image(message.encoding, message.height, message.width, message.step, message.data)


def message_to_depth(message: Image) -> np.ndarray:
    """Returns a raw depth image in metres, (H, W) float32.

    Raises:
        RobotError: the encoding is not one of depth, or the size does not fit the data.
    """
    big = bool(message.is_bigendian)
    return decode_depth(message.encoding, message.height, message.width, message.step, message.data, big)


def rgb_to_image(rgb: np.ndarray, stamp_ns: int, frame_id: str) -> Image:
    """Makes a raw 'rgb8' message from (H, W, 3) uint8."""
    height, width, channels = rgb.shape
    message = Image(height=height, width=width, encoding="rgb8", is_bigendian=0, step=width * channels)
    message.header.stamp = ns_to_time(stamp_ns)
    message.header.frame_id = frame_id
    # rclpy checks every element of anything but an array.array.
    message.data = array.array("B", rgb.tobytes())
    return message


def rgb_to_compressed(rgb: np.ndarray, stamp_ns: int, frame_id: str) -> CompressedImage:
    """Makes a JPEG message from (H, W, 3) uint8."""
    message = CompressedImage(format="jpeg")
    message.header.stamp = ns_to_time(stamp_ns)
    message.header.frame_id = frame_id
    message.data = array.array("B", encode_jpeg(rgb))
    return message
