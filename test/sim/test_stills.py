"""Stills show what their labels say."""

import numpy as np
import pytest

from dit_policy_ros.errors import WorldError
from dit_policy_ros.sim.stills import STILL_OBJECTS, render_stills
from dit_policy_ros.sim.worlds import WORLDS
from dit_policy_ros.train.config import load_train_config

VIEW = load_train_config("demo").slow_camera
_COUNT = 30


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("stills")


@pytest.fixture(scope="module")
def cubes(cache):
    return render_stills("aloha_language", VIEW, _COUNT, cache, workers=1)


def _centre_of(image, channel):
    """Mean (x, y) of the pixels of one strong colour, in -1..1; None where the hand hides the most of it."""
    rgb = image.astype(float)
    strong = rgb[..., channel] - np.delete(rgb, channel, axis=-1).max(-1) > 90
    if strong.sum() < 45:
        return None
    rows, columns = np.nonzero(strong)
    return np.array([columns.mean() / 63.5 - 1, rows.mean() / 47.5 - 1])


def test_places_are_where_the_colours_are(cubes):
    assert cubes.tasks == ("red", "green", "blue")
    seen, said = [], []
    for image, places in zip(cubes.images, cubes.places, strict=True):
        for channel in (0, 1):  # tinted tables and lamps leave blue less clear
            centre = _centre_of(image, channel)
            if centre is not None:
                seen.append(centre)
                said.append(places[channel, :2])
    seen, said = np.array(seen), np.array(said)
    assert len(seen) > 15
    for axis in (0, 1):
        assert abs(np.corrcoef(seen[:, axis], said[:, axis])[0, 1]) > 0.97


def test_what_a_task_does_not_say_is_unknown(cubes, cache):
    assert np.isnan(cubes.places[..., 2:4]).all()
    np.testing.assert_allclose(np.hypot(cubes.places[..., 4], cubes.places[..., 5]), 0.25, atol=1e-5)
    parts = render_stills("aloha_insertion", VIEW, 5, cache, workers=1)
    assert np.isfinite(parts.places[..., :4]).all()
    assert np.isnan(parts.places[..., 4:]).all()
    assert (parts.places[..., 0] > parts.places[..., 2]).all()  # the peg lies right of the socket


def test_equal_scenes_each_time_and_from_the_cache(cubes, cache, tmp_path):
    again = render_stills("aloha_language", VIEW, _COUNT, tmp_path, workers=1)
    np.testing.assert_array_equal(again.images, cubes.images)
    stamps = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    kept = render_stills("aloha_language", VIEW, _COUNT, cache, workers=1)
    np.testing.assert_array_equal(kept.places, cubes.places)
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == stamps
    other = render_stills("aloha_language", VIEW, 3, tmp_path, seed=10_000, workers=1)
    assert not np.array_equal(other.images, cubes.images[:3])


def test_only_worlds_with_known_objects(cache):
    assert set(STILL_OBJECTS) <= set(WORLDS)
    with pytest.raises(WorldError, match="aloha_insertion"):
        render_stills("moon", VIEW, 1, cache)
