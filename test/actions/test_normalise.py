import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file, save_file

from dit_policy_ros.actions.normalise import (
    NORMALISATIONS,
    Normaliser,
    binarised,
    divided,
    min_max,
    none,
    quantile,
    z_score,
)
from dit_policy_ros.actions.statistics import ChannelStatistics
from dit_policy_ros.errors import CheckpointError, PolicyError

VALUES = st.floats(-100.0, 100.0, allow_nan=False)
DATA = arrays(np.float64, (20, 3), elements=VALUES)


def statistics_of(data, **values):
    low, high = np.quantile(data, [0.01, 0.99], axis=0)
    return ChannelStatistics(
        data.mean(axis=0), data.std(axis=0), data.min(axis=0), data.max(axis=0), low, high, **values
    )


@given(DATA, arrays(np.float64, (5, 3), elements=VALUES), st.sampled_from(sorted(NORMALISATIONS)))
def test_restoring_undoes_normalising(data, values, name):
    normaliser = NORMALISATIONS[name](statistics_of(data))
    np.testing.assert_allclose(normaliser.restore(normaliser.normalise(values)), values, rtol=1e-6, atol=1e-5)


@given(DATA)
def test_each_maps_its_landmarks(data):
    statistics = statistics_of(data)
    moves = data.std(axis=0) > 1e-3
    normalised = z_score(statistics).normalise(data)[:, moves]
    np.testing.assert_allclose(normalised.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(normalised.std(axis=0), 1.0, atol=1e-6)
    for low, high in ((-1.0, 1.0), (0.0, 1.0)):
        normaliser = min_max(statistics, low, high)
        np.testing.assert_allclose(normaliser.normalise(statistics.min)[moves], low, atol=1e-6)
        np.testing.assert_allclose(normaliser.normalise(statistics.max)[moves], high, atol=1e-6)
    spread = statistics.q99 - statistics.q01 > 1e-3
    np.testing.assert_allclose(quantile(statistics).normalise(statistics.q01)[spread], -1.0, atol=1e-6)
    np.testing.assert_allclose(quantile(statistics).normalise(statistics.q99)[spread], 1.0, atol=1e-6)


def test_a_channel_that_does_not_move_is_only_shifted():
    statistics = statistics_of(np.full((4, 1), 7.0))
    for make, centre in ((z_score, 0.0), (min_max, 0.0), (quantile, 0.0)):
        normaliser = make(statistics)
        assert normaliser.normalise(np.array([7.0])).tolist() == [centre]
        assert normaliser.restore(np.array([centre + 0.5])).tolist() == [7.5]
    assert min_max(statistics, 0.0, 1.0).normalise(np.array([7.0])).tolist() == [0.5]


def test_masked_channels_are_left_alone():
    statistics = statistics_of(np.array([[0.0, 0.0], [10.0, 10.0]]), mask=np.array([True, False]))
    for make in NORMALISATIONS.values():
        normalised = make(statistics).normalise(np.array([5.0, 5.0]))
        assert normalised[0] == pytest.approx(0.0)
        assert normalised[1] == 5.0
    assert none(2).only(None).normalise(np.array([5.0, 6.0])).tolist() == [5.0, 6.0]


def test_a_bound_clips_both_ways():
    statistics = statistics_of(np.array([[0.0], [10.0]]))
    free, bounded = min_max(statistics), min_max(statistics, bound=1.0)
    assert free.normalise(np.array([20.0])).tolist() == [3.0]
    assert bounded.normalise(np.array([20.0])).tolist() == [1.0]
    assert free.restore(np.array([3.0])).tolist() == [20.0]
    assert bounded.restore(np.array([3.0])).tolist() == [10.0]
    for make in (z_score, quantile):
        assert make(statistics, bound=1.0).normalise(np.array([50.0])).tolist() == [1.0]


def test_the_actions_of_cogact():
    """Percentiles and a two-valued gripper that is masked out, as the official policy has them."""
    statistics = ChannelStatistics(q01=np.array([-0.8, 0.0]), q99=np.array([0.9, 1.0]), mask=np.array([True, False]))
    sample = np.array([[2.0, 0.4], [-1.0, 0.6]])
    sample[:, 1] = binarised(sample[:, 1], 0.5)
    np.testing.assert_allclose(quantile(statistics, bound=1.0).restore(sample), [[0.9, 0.0], [-0.8, 1.0]])
    assert binarised(np.array([-0.1, 0.0]), 0.0, -1.0, 1.0).tolist() == [-1.0, 1.0]


def test_the_grippers_of_rdt():
    states = divided((1.0, 4.7908))
    np.testing.assert_allclose(states.normalise(np.array([0.3, 4.7908])), [0.3, 1.0])
    actions = divided((1.0, 11.8997))
    np.testing.assert_allclose(actions.restore(np.array([0.3, 1.0])), [0.3, 11.8997])
    for bad in ((1.0, 0.0), (np.inf,)):
        with pytest.raises(PolicyError, match="finite and not 0"):
            divided(bad)


def test_damaged_or_foreign_values_are_refused():
    with pytest.raises(PolicyError, match="no scale 0"):
        Normaliser(np.array([1.0, 0.0]), np.zeros(2))
    with pytest.raises(PolicyError, match="must be finite"):
        Normaliser(np.array([np.nan]), np.zeros(1))
    with pytest.raises(PolicyError, match="vectors of one length"):
        Normaliser(np.ones(2), np.zeros(3))
    with pytest.raises(PolicyError, match="Got 3 channels; the normalisation is for 2"):
        none(2).normalise(np.zeros((4, 3)))
    with pytest.raises(PolicyError, match="Got 1 channels"):
        none(2).restore(np.zeros(1))
    with pytest.raises(CheckpointError, match="lack std"):
        z_score(ChannelStatistics(mean=np.zeros(2)))
    with pytest.raises(CheckpointError, match="lack q01, q99"):
        quantile(ChannelStatistics(mean=np.zeros(2)))


def test_statistics_come_from_json_by_path(tmp_path):
    path = tmp_path / "statistics.json"
    entry = {"mean": [0, 1], "std": [1, 2], "q01": [0, 0], "q99": [1, 1], "mask": [True, False], "count": 9}
    path.write_text(json.dumps({"bridge": {"action": entry, "num_trajectories": 3}}))
    statistics = ChannelStatistics.from_json(path, "bridge", "action")
    assert statistics.std.tolist() == [1.0, 2.0]
    assert statistics.mask.dtype == bool
    assert statistics.min is None
    with pytest.raises(CheckpointError, match="lacks the statistics 'fractal'; it has bridge"):
        ChannelStatistics.from_json(path, "fractal")
    path.write_text("{")
    with pytest.raises(CheckpointError, match="Cannot read the statistics"):
        ChannelStatistics.from_json(path)


def test_statistics_come_from_tensors_by_prefix(tmp_path):
    path = tmp_path / "normaliser.safetensors"
    save_file(
        {"action.min": np.zeros(2, np.float32), "action.max": np.ones(2, np.float32), "state.min": np.zeros(3)}, path
    )
    tensors = load_file(path)
    statistics = ChannelStatistics.from_tensors(tensors, "action.")
    assert statistics.max.tolist() == [1.0, 1.0]
    with pytest.raises(CheckpointError, match=r"'goal\.\*' must hold vectors"):
        ChannelStatistics.from_tensors(tensors, "goal.")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"mean": [0.0], "variance": [1.0]}, "unknown variance"),
        ({"mean": [0.0], "std": [1.0, 1.0]}, "vectors of one length"),
        ({"mean": [0.0], "names": ["a", "b"]}, "vectors of one length"),
        ({"mean": [[0.0]]}, "list of finite numbers"),
        ({"mean": [float("nan")]}, "list of finite numbers"),
        ({"mean": ["left"]}, "not a list of numbers"),
        ({}, "vectors of one length"),
        ([1.0], "must be a mapping"),
    ],
)
def test_damaged_statistics_are_refused(data, message):
    with pytest.raises(CheckpointError, match=message):
        ChannelStatistics.from_mapping(data, "The statistics")


def test_statistics_are_matched_to_a_robot_by_name():
    statistics = ChannelStatistics.from_mapping(
        {"mean": [1, 2, 3], "mask": [True, True, False], "names": ["waist", "elbow", "gripper"]}, "The statistics"
    )
    chosen = statistics.of(("gripper", "waist"))
    assert chosen.mean.tolist() == [3.0, 1.0]
    assert chosen.mask.tolist() == [False, True]
    assert chosen.names == ("gripper", "waist")
    with pytest.raises(CheckpointError, match="lack wrist; they are of another robot, with waist, elbow, gripper"):
        statistics.of(("waist", "wrist"))
    with pytest.raises(CheckpointError, match="carry no channel names"):
        ChannelStatistics(mean=np.zeros(1)).of(("waist",))
