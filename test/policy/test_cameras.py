"""What a policy sees of a camera."""

from dataclasses import asdict

import numpy as np
import pytest

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.cameras import CameraView, parse_view
from dit_policy_ros.types import Observation

PLAIN = {"name": "top", "source": [40, 30], "box": [0.25, 0.0, 0.75, 1.0], "size": [10, 15]}
FRAMED = {**PLAIN, "frame": [0.0, 0.0, 1.0, 1.0], "frame_width": 20}


def image_of(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def test_a_view_is_a_part_made_smaller_by_averaging():
    image = image_of()
    seen = parse_view(PLAIN, "here", CheckpointError).apply(image)
    blocks = image[:, 10:30].reshape(15, 2, 10, 2, 3).mean(axis=(1, 3))
    assert seen.shape == (15, 10, 3)
    np.testing.assert_allclose(seen, blocks, atol=0.51)


def test_a_frame_stands_to_the_right():
    image = image_of()
    seen = parse_view(FRAMED, "here", CheckpointError).apply(image)
    assert seen.shape == (15, 30, 3)
    np.testing.assert_array_equal(seen[:, :10], parse_view(PLAIN, "here", CheckpointError).apply(image))
    np.testing.assert_allclose(seen[:, 10:], image.reshape(15, 2, 20, 2, 3).mean(axis=(1, 3)), atol=0.51)


@pytest.mark.parametrize("entry", [PLAIN, FRAMED])
def test_a_view_survives_being_written(entry):
    view = parse_view(entry, "here", CheckpointError)
    assert parse_view(asdict(view), "here", CheckpointError) == view


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame": [0.0, 0.0, 1.0, 1.0]}, "give frame and frame_width together"),
        ({"frame_width": 20}, "give frame and frame_width together"),
        ({"frame": [0.5, 0.0, 0.2, 1.0], "frame_width": 20}, r"\[0.5, 0.0, 0.2, 1.0\] is not left, top, right, bottom"),
        ({"box": [0.0, 0.0, 2.0, 1.0]}, "within 0..1"),
        ({"box": [0.0, 1.0]}, "here is malformed"),
        ({"size": ["wide", 2]}, "here is malformed"),
        ({"frames": 1}, "unknown frames"),
    ],
)
def test_malformed_views_are_refused(changes, message):
    with pytest.raises(CheckpointError, match=message):
        parse_view({**PLAIN, **changes}, "here", CheckpointError)


def test_odd_images_are_refused():
    view = CameraView("top", (40, 30), (0.0, 0.0, 1.0, 1.0), (10, 15))
    for odd in (image_of()[:20], image_of()[..., 0], image_of().astype(np.float32)):
        with pytest.raises(PolicyError, match="Camera top gave an image of"):
            view.apply(odd)
    with pytest.raises(PolicyError, match="Camera top is missing from the observation; present: left"):
        view.look(Observation(0, {}, images={"left": image_of()}))
