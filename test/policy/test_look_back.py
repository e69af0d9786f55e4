"""Families that look at several frames get them from the observation, or from their last encodes."""

from dataclasses import replace

import numpy as np
import pytest

from dit_policy_ros.policy.checkpoint import load_policy
from dit_policy_ros.policy.continuity.methods import continued

pytest.importorskip("transformers")
from tiny_families import WORDS, make_family_directory, observe


@pytest.fixture(scope="module")
def rdt(tmp_path_factory):
    return load_policy(make_family_directory("rdt_aloha", tmp_path_factory.mktemp("families") / "rdt"))


def test_older_frames_of_the_observation_are_what_the_network_sees(rdt):
    older, newer = observe(rdt, seed=1), observe(rdt, seed=2, stamp_ns=1_040_000_000)
    rdt.encode(older, WORDS, epoch=1)
    remembered = rdt.encode(newer, WORDS, epoch=1)
    given = rdt.encode(replace(newer, earlier_images=(older.images,)), WORDS, epoch=2)
    alone = rdt.encode(newer, WORDS, epoch=3)
    np.testing.assert_array_equal(given.tensors["img_tokens"], remembered.tensors["img_tokens"])
    assert np.abs(alone.tensors["img_tokens"] - given.tensors["img_tokens"]).max() > 1e-6


def test_a_policy_and_its_wrapper_say_how_many_frames_they_need(rdt):
    assert rdt.frames == continued(rdt, "splice").frames == 2


def test_another_draw_for_the_same_observation_does_not_count_as_another_step(rdt):
    observation = observe(rdt)
    context = rdt.encode(observation, WORDS, epoch=5)
    rdt.act(observation, context)
    states = rdt._states
    rdt.act(observation, context)
    assert rdt._states is states
