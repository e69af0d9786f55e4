import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file

from dit_policy_ros.actions.ensemble import (
    adaptive_weights,
    ensembled,
    predictions_at,
    temporal_weights,
    without_zeros,
)
from dit_policy_ros.errors import PolicyError
from dit_policy_ros.types import ActionChunk

COGACT = Path(__file__).parents[1] / "golden" / "cogact"
STEP_NS = 100
VALUES = st.floats(-5.0, 5.0, allow_nan=False, width=32)
PREDICTIONS = st.integers(1, 6).flatmap(lambda n: arrays(np.float64, (n, 3), elements=VALUES))


def chunk(start_ns, actions, **values):
    actions = np.asarray(actions, dtype=np.float64)
    names = tuple(f"joint_{i}" for i in range(actions.shape[1]))
    return ActionChunk(names, start_ns, STEP_NS, actions, **values)


def cogact_cases():
    cases = json.loads((COGACT / "reference.json").read_text())["cases"]
    return [pytest.param(case, id=case["name"]) for case in cases if case["kind"] == "ensemble"]


@pytest.mark.parametrize("case", cogact_cases())
def test_the_adaptive_ensemble_of_cogact(case):
    arrays_of = load_file(COGACT / "cases.safetensors")
    given_name, expected = case["inputs"][0], arrays_of[f"{case['name']}.ensembled_actions"]
    stacked = arrays_of[f"{case['name']}.{given_name}"].astype(np.float64)
    window, alpha = case["settings"]["pred_action_horizon"], case["settings"]["alpha"]
    for call in range(len(stacked)):
        kept = range(max(0, call - window + 1), call + 1)
        if stacked.ndim == 2:  # single actions are averaged without moving them in time
            predictions = stacked[kept.start : kept.stop]
            action = adaptive_weights(predictions, alpha) @ predictions
        else:
            chunks = [chunk(i * STEP_NS, stacked[i]) for i in kept]
            action = ensembled(chunks, partial(adaptive_weights, alpha=alpha)).actions[0]
        np.testing.assert_allclose(action, expected[call], rtol=0, atol=case["tolerance"])


@given(PREDICTIONS, st.floats(0.0, 2.0))
def test_weights_are_a_convex_combination(predictions, strength):
    for weights in (temporal_weights(predictions, strength), adaptive_weights(predictions, strength)):
        assert weights.shape == (len(predictions),)
        assert (weights > 0).all()
        assert weights.sum() == pytest.approx(1.0)
        average = weights @ predictions
        assert (average <= predictions.max(axis=0) + 1e-9).all()
        assert (average >= predictions.min(axis=0) - 1e-9).all()


@given(PREDICTIONS)
def test_a_strength_of_zero_averages_plainly(predictions):
    np.testing.assert_allclose(temporal_weights(predictions, 0.0), 1 / len(predictions))
    np.testing.assert_allclose(adaptive_weights(predictions, 0.0), 1 / len(predictions))


def test_the_oldest_weighs_most_by_time_and_the_alike_by_agreement():
    predictions = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    temporal, adaptive = temporal_weights(predictions, 0.5), adaptive_weights(predictions, 2.0)
    assert temporal[0] > temporal[1] > temporal[2]
    assert adaptive[0] > adaptive[1]
    assert adaptive[2] == max(adaptive)


def test_exact_zeros_are_dropped_only_on_request():
    predictions = np.array([[1.0, 0.0], [2.0, 3.0]])
    assert without_zeros(predictions).tolist() == [[2.0, 3.0]]
    assert predictions_at([chunk(0, predictions[:1]), chunk(0, predictions[1:])], 0).tolist() == predictions.tolist()


def test_predictions_are_found_by_time():
    older, newer = chunk(0, [[0.0], [1.0], [2.0], [3.0]]), chunk(150, [[10.0], [20.0]])
    assert predictions_at([older, newer], 100).tolist() == [[1.0]]
    assert predictions_at([older, newer], 150).tolist() == [[1.5], [10.0]]
    assert predictions_at([older, newer], 250).tolist() == [[2.5], [20.0]]
    assert predictions_at([older, newer], 275).tolist() == [[2.75]]
    assert predictions_at([older, newer], 400).shape == (0, 1)
    assert predictions_at([], 0).shape == (0, 0)


def test_the_newest_chunk_is_averaged_where_others_reach():
    older = chunk(0, [[0.0], [0.0], [0.0]])
    newer = chunk(100, [[2.0], [2.0], [2.0]], observation_ns=7)
    result = ensembled([older, newer], partial(temporal_weights, decay=0.0))
    assert result.actions.tolist() == [[1.0], [1.0], [2.0]]
    assert (result.start_ns, result.observation_ns) == (100, 7)
    assert newer.actions.tolist() == [[2.0], [2.0], [2.0]]


def test_committed_actions_and_other_epochs_are_left_out():
    older = chunk(0, [[0.0], [0.0], [0.0]])
    plain = partial(temporal_weights, decay=0.0)
    committed = chunk(100, [[2.0], [2.0]], committed=1)
    assert ensembled([older, committed], plain).actions.tolist() == [[2.0], [1.0]]
    next_epoch = chunk(100, [[2.0], [2.0]], epoch=1)
    assert ensembled([older, next_epoch], plain).actions.tolist() == [[2.0], [2.0]]


def test_one_chunk_is_itself():
    only = chunk(0, np.arange(6.0).reshape(3, 2))
    for rule in (temporal_weights, adaptive_weights):
        np.testing.assert_allclose(ensembled([only], rule).actions, only.actions)


def test_nothing_and_foreign_channels_are_refused():
    with pytest.raises(PolicyError, match="at least the newest"):
        ensembled([], temporal_weights)
    with pytest.raises(PolicyError, match="different channels"):
        ensembled([chunk(0, [[0.0]]), chunk(0, [[0.0, 1.0]])], temporal_weights)
