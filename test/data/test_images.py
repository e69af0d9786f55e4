import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.data import images, messages
from dit_policy_ros.data.images import (
    COLOUR_ENCODINGS,
    decode_compressed,
    decode_depth,
    decode_image,
    encode_jpeg,
)
from dit_policy_ros.errors import BagError, RobotError

ORDERS = {"rgb8": "rgb", "bgr8": "bgr", "8UC3": "bgr", "rgba8": "rgba", "bgra8": "bgra", "8UC4": "bgra"}


def as_message(encoding: str, image: np.ndarray, padding: int) -> tuple[int, bytes]:
    """Lays an RGB image out as a driver would; returns step and data."""
    height, width = image.shape[:2]
    planes = {"r": image[..., 0], "g": image[..., 1], "b": image[..., 2], "a": np.full((height, width), 200, np.uint8)}
    order = ORDERS.get(encoding, "r")
    pixels = np.stack([planes[channel] for channel in order], axis=-1).reshape(height, -1)
    rows = np.concatenate([pixels, np.full((height, padding), 77, np.uint8)], axis=1)
    return rows.shape[1], rows.tobytes()


@pytest.mark.parametrize("encoding", COLOUR_ENCODINGS)
@given(
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    padding=st.integers(0, 3),
    seed=st.integers(0, 99),
    cut=st.booleans(),
)
def test_every_colour_encoding_gives_the_same_rgb(encoding, height, width, padding, seed, cut):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    step, data = as_message(encoding, image, padding)
    if cut and padding:
        data = data[:-padding]
    decoded = decode_image(encoding, height, width, step, data)
    expected = image if encoding in ORDERS else np.repeat(image[..., :1], 3, axis=2)
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.flags.c_contiguous
    assert decoded.flags.writeable


@pytest.mark.parametrize("bigendian", [False, True])
def test_depth_is_in_metres_and_zero_is_unmeasured(bigendian):
    millimetres = np.array([[0, 1500], [250, 65535]], dtype=">u2" if bigendian else "<u2")
    depth = decode_depth("16UC1", 2, 2, 4, millimetres.tobytes(), bigendian)
    np.testing.assert_allclose(depth, [[np.nan, 1.5], [0.25, 65.535]], rtol=1e-6)
    metres = np.array([[0.5, 1.5]], dtype=">f4" if bigendian else "<f4")
    np.testing.assert_array_equal(decode_depth("32FC1", 1, 2, 8, metres.tobytes(), bigendian), [[0.5, 1.5]])


def test_png_is_exact_and_jpeg_is_close():
    rows, columns = np.mgrid[0:48, 0:64]
    image = np.stack([rows * 4, columns * 3, 255 - rows * 2], axis=-1).astype(np.uint8)
    png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(decode_compressed(png, "png"), image)
    jpeg = encode_jpeg(image)
    assert jpeg == encode_jpeg(image)
    error = np.abs(decode_compressed(jpeg, "jpeg").astype(int) - image)
    assert error.mean() < 3
    assert len(encode_jpeg(image, quality=20)) < len(jpeg)


@pytest.mark.parametrize(
    ("suffix", "channels"), [(".jpg", 3), (".jpg", 1), (".png", 3), (".png", 1), (".png", 4), (".webp", 3)]
)
def test_old_and_new_opencv_decode_the_same(monkeypatch, suffix, channels):
    pixels = np.random.default_rng(2).integers(0, 256, (40, 56, channels), dtype=np.uint8)
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    image = decode_compressed(data)
    monkeypatch.setattr(images, "_AS_RGB", 0)
    np.testing.assert_array_equal(decode_compressed(data), image)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: decode_image("yuv422", 2, 2, 4, bytes(8)), "'yuv422' is not supported. Supported: rgb8"),
        (lambda: decode_image("16UC1", 2, 2, 4, bytes(8)), "is depth"),
        (lambda: decode_image("rgb8", 2, 2, 5, bytes(12)), "step of at least 6"),
        (lambda: decode_image("rgb8", 2, 2, 6, bytes(11)), "carries 11 bytes"),
        (lambda: decode_image("rgb8", 0, 2, 6, b""), "carries 0 bytes"),
        (lambda: decode_depth("rgb8", 2, 2, 6, bytes(12)), "Depth encoding 'rgb8'"),
        (lambda: decode_compressed(b"", "jpeg"), "cannot be decoded"),
        (lambda: decode_compressed(b"not an image", "jpeg"), "cannot be decoded"),
        (lambda: decode_compressed(b"x", "16UC1; compressedDepth png"), "is depth"),
        (lambda: encode_jpeg(np.zeros((4, 4), np.uint8)), "must be uint8"),
        (lambda: encode_jpeg(np.zeros((4, 4, 3))), "must be uint8"),
    ],
)
def test_bad_images_say_what_is_wrong(call, match):
    with pytest.raises(RobotError, match=match):
        call()


@given(
    frame=st.text(max_size=9),
    image_format=st.sampled_from(["jpeg", "png", "rgb8; jpeg compressed bgr8", ""]),
    data=st.binary(max_size=9),
)
def test_a_compressed_image_is_read_without_a_deserialiser(frame, image_format, data):
    message = messages.compressed_image(5, frame.replace("\0", ""), data, image_format)
    cdr = bytes(messages.typestore().serialize_cdr(message, messages.COMPRESSED_IMAGE))
    found_format, found = messages.peek_compressed_image(cdr, "/top")
    assert (found_format, found.tobytes()) == (image_format, data)
    big = bytes(messages.typestore().serialize_cdr(message, messages.COMPRESSED_IMAGE, little_endian=False))
    assert messages.peek_compressed_image(big, "/top")[1].tobytes() == data
    if data:
        with pytest.raises(BagError, match="no whole sensor_msgs/msg/CompressedImage"):
            messages.peek_compressed_image(cdr[: -len(data) - 2], "/top")
