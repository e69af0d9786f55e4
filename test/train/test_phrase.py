"""Sentences lose words, never those that name what is asked for."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from dit_policy_ros.policy.text import hash_words
from dit_policy_ros.sim import phrases
from dit_policy_ros.train.config import load_train_config
from dit_policy_ros.train.phrase import Phrase, obscured

SENTENCE = "hand the red cube to the left arm please"


def hash_all(recordings, said, **changes):
    config = replace(load_train_config(recordings[2]), **changes)
    return obscured(said, config, np.random.default_rng(0))


def words_of(row):
    """The words of the sentence that a row still has, and how many others."""
    known = {int(piece): word for word, piece in zip(SENTENCE.split(), hash_words(SENTENCE)[:, 0], strict=False)}
    pieces = [int(piece) for piece in row[:, 0] if piece != 0]
    return [known[piece] for piece in pieces if piece in known], sum(piece not in known for piece in pieces)


def test_whole_sentences_stay_whole(recordings):
    assert torch.equal(hash_all(recordings, [Phrase(SENTENCE)] * 3), hash_words(SENTENCE).expand(3, -1, -1))


@pytest.mark.parametrize("name", ["unknown_words", "left_out_words"])
def test_words_get_lost_but_not_those_that_matter(recordings, name):
    rows = hash_all(recordings, [Phrase(SENTENCE, 2, ("red", "cobalt"))] * 200, **{name: 0.8})
    losses = []
    for row in rows:
        known, strange = words_of(row)
        assert "red" in known
        order = iter(SENTENCE.split())
        assert all(word in order for word in known)  # in their order
        count = int((row[:, 0] != 0).sum())
        assert (count == 9 and len(known) + strange == 9) if name == "unknown_words" else strange == 0
        assert not row[count:].any()
        losses.append(9 - len(known))
    assert 2.0 < np.mean(losses) < 4.4  # 0.4 of eight words
    assert min(losses) == 0


@pytest.mark.parametrize("task", ["red", "green", "blue"])
def test_colours_of_simulated_tasks_are_kept(recordings, task):
    said = [Phrase(phrases.draw(task, "train", seed), 0, phrases.NAMING[task]) for seed in range(200)]
    for phrase, row in zip(said, hash_all(recordings, said, unknown_words=1.0, left_out_words=1.0), strict=True):
        left = set(row[:, 0].tolist())
        colours = [word for word in re.split(r"\W", phrase.text) if word in phrases.NAMING[task]]
        assert colours
        assert all(int(hash_words(word)[0, 0]) in left for word in colours), phrase.text
