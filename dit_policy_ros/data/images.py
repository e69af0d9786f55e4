"""Images as ROS messages carry them, to and from RGB arrays.

Arguments are primitive, so that a bag and a live topic decode through the same code.
"""

from __future__ import annotations

import cv2
import numpy as np

from dit_policy_ros.errors import RobotError

# Encoding to (channels, index of red, green and blue among them). An untyped 8UC3 is read as OpenCV writes it: BGR.
_COLOUR: dict[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "8UC3": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "8UC4": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
    "8UC1": (1, (0, 0, 0)),
}
# Encoding to (type without byte order, metres per unit), after REP 118.
_DEPTH: dict[str, tuple[str, float]] = {"16UC1": ("u2", 1e-3), "mono16": ("u2", 1e-3), "32FC1": ("f4", 1.0)}

_AS_RGB: int = getattr(cv2, "IMREAD_COLOR_RGB", 0)
"""Since OpenCV 4.11; saves a second image and a tenth of the time."""

COLOUR_ENCODINGS = tuple(_COLOUR)
DEPTH_ENCODINGS = tuple(_DEPTH)


def decode_image(encoding: str, height: int, width: int, step: int, data: bytes | np.ndarray) -> np.ndarray:
    """Decodes the fields of a ``sensor_msgs/Image`` of colour or grey.

    Args:
        encoding: one of ``COLOUR_ENCODINGS``.
        height: rows.
        width: columns.
        step: bytes from one row to the next, padding included.
        data: at least ``height * step`` bytes.

    Returns:
        (height, width, 3) uint8 RGB, contiguous and writable, a copy.

    Raises:
        RobotError: the encoding is not one of these, or the sizes contradict each other.
    """
    if encoding in _DEPTH:
        raise RobotError(f"Image encoding '{encoding}' is depth, not colour; use this topic as a depth camera.")
    if encoding not in _COLOUR:
        raise RobotError(f"Image encoding '{encoding}' is not supported. Supported: {', '.join(COLOUR_ENCODINGS)}.")
    channels, order = _COLOUR[encoding]
    pixels = _rows(encoding, height, width, step, data, channels).reshape(height, width, channels)
    return np.ascontiguousarray(pixels[..., order])


def decode_depth(
    encoding: str, height: int, width: int, step: int, data: bytes | np.ndarray, is_bigendian: bool = False
) -> np.ndarray:
    """Decodes the fields of a ``sensor_msgs/Image`` of depth.

    Returns:
        (height, width) float32 [m]; NaN where the sensor measured nothing (zero in 16UC1, REP 118).

    Raises:
        RobotError: the encoding is not one of ``DEPTH_ENCODINGS``, or the sizes contradict each other.
    """
    if encoding not in _DEPTH:
        raise RobotError(f"Depth encoding '{encoding}' is not supported. Supported: {', '.join(DEPTH_ENCODINGS)}.")
    kind, scale = _DEPTH[encoding]
    dtype = np.dtype(kind).newbyteorder(">" if is_bigendian else "<")
    rows = _rows(encoding, height, width, step, data, dtype.itemsize)
    values = np.ascontiguousarray(rows).view(dtype).reshape(height, width)
    depth = values.astype(np.float32) * np.float32(scale)
    return np.where(values == 0, np.float32(np.nan), depth) if kind == "u2" else depth


def decode_compressed(data: bytes | np.ndarray, image_format: str = "jpeg") -> np.ndarray:
    """Decodes the fields of a ``sensor_msgs/CompressedImage``: JPEG, PNG, or whatever else OpenCV reads.

    Args:
        data: the file's bytes; they tell their own type.
        image_format: ``format`` of the message, for the error text and to refuse depth.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        RobotError: the bytes are no image, or hold depth.
    """
    if "compressedDepth" in image_format:
        raise RobotError(f"Compressed image format '{image_format}' is depth, not colour; use a colour topic.")
    buffer = np.frombuffer(data, dtype=np.uint8)
    flags = (_AS_RGB or cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(buffer, flags) if len(buffer) else None
    except cv2.error as problem:
        raise RobotError(f"A compressed image ('{image_format}', {len(buffer)} bytes) is corrupt.") from problem
    if image is None:
        raise RobotError(
            f"A compressed image ('{image_format}', {len(buffer)} bytes) cannot be decoded. Use JPEG or PNG."
        )
    return image if _AS_RGB else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_compressed_depth(data: bytes | np.ndarray, image_format: str) -> np.ndarray:
    """Decodes the fields of a ``sensor_msgs/CompressedImage`` of the transport compressedDepth.

    A header of twelve bytes (an enumeration and two float32) stands before a PNG of 16 bits. With 16UC1 its values are
    millimetres; with 32FC1 the depth is ``a / (value - b)`` with the two numbers of the header
    (compressed_depth_image_transport).

    Returns:
        (height, width) float32 [m]; NaN where the sensor measured nothing.

    Raises:
        RobotError: the bytes are no such image.
    """
    encoding = image_format.partition(";")[0].strip()
    buffer = np.frombuffer(data, dtype=np.uint8)
    if "compressedDepth" not in image_format or encoding not in ("16UC1", "mono16", "32FC1"):
        raise RobotError(
            f"Compressed depth format '{image_format}' is not supported. Supported: 16UC1 and 32FC1, as "
            "'16UC1; compressedDepth png'."
        )
    values = cv2.imdecode(buffer[12:], cv2.IMREAD_UNCHANGED) if len(buffer) > 12 else None
    if values is None or values.dtype != np.uint16 or values.ndim != 2:
        raise RobotError(f"A compressed depth image ('{image_format}', {len(buffer)} bytes) holds no PNG of 16 bits.")
    if encoding == "32FC1":
        scale, offset = np.frombuffer(buffer[4:12].tobytes(), "<f4")
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = scale / (values.astype(np.float32) - offset)
    else:
        depth = values.astype(np.float32) * np.float32(1e-3)
    return np.where(values == 0, np.float32(np.nan), depth).astype(np.float32)


def encode_jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    """Encodes (H, W, 3) uint8 RGB as JPEG; the same image gives the same bytes.

    Raises:
        RobotError: not such an array.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise RobotError(f"An image is {image.dtype} {image.shape}; it must be uint8 (height, width, 3), RGB.")
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise RobotError(f"JPEG cannot hold an image of {image.shape[1]}x{image.shape[0]} pixels.")
    return data.tobytes()


def _rows(encoding: str, height: int, width: int, step: int, data: bytes | np.ndarray, pixel: int) -> np.ndarray:
    """Returns (height, width * pixel) uint8 without the padding at the end of each row."""
    buffer = np.frombuffer(data, dtype=np.uint8)
    used = width * pixel
    if height < 1 or width < 1 or step < used or len(buffer) < (height - 1) * step + used:
        raise RobotError(
            f"An image says {encoding} {width}x{height} with step {step}, but carries {len(buffer)} bytes; "
            f"it needs a step of at least {max(used, 1)} and {max(height, 1) * max(step, used)} bytes."
        )
    if len(buffer) < height * step:  # The last row may come without its padding.
        buffer = np.concatenate([buffer, np.zeros(height * step - len(buffer), dtype=np.uint8)])
    return buffer[: height * step].reshape(height, step)[:, :used]
