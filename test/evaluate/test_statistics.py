import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.evaluate.statistics import clopper_pearson, mcnemar, percentiles, wilson

COUNTS = st.integers(1, 500).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))
INTERVALS = pytest.mark.parametrize("interval", [wilson, clopper_pearson])


@pytest.mark.parametrize(("interval", "method"), [(wilson, "wilson"), (clopper_pearson, "exact")])
@given(counts=COUNTS, confidence=st.floats(0.5, 0.999))
def test_agrees_with_scipy(interval, method, counts, confidence):
    own = interval(*counts, confidence)
    theirs = stats.binomtest(*counts).proportion_ci(confidence, method)
    assert (own.lower, own.upper) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@INTERVALS
@given(counts=COUNTS)
def test_contains_the_rate_and_mirrors(interval, counts):
    successes, trials = counts
    own, mirrored = interval(successes, trials), interval(trials - successes, trials)
    assert 0.0 <= own.lower <= successes / trials <= own.upper <= 1.0
    assert (own.lower, own.upper) == pytest.approx((1 - mirrored.upper, 1 - mirrored.lower), abs=1e-9)


@INTERVALS
@given(counts=COUNTS)
def test_shrinks_with_more_trials_and_grows_with_confidence(interval, counts):
    successes, trials = counts
    width = [
        bounds.upper - bounds.lower for bounds in (interval(successes, trials), interval(4 * successes, 4 * trials))
    ]
    assert width[1] < width[0]
    wide = interval(successes, trials, 0.99)
    assert wide.upper - wide.lower > width[0]


@given(counts=COUNTS)
def test_exact_is_never_shorter_than_promised(counts):
    """By definition: the rate at each bound gives this result or a more extreme one with half the error."""
    successes, trials = counts
    exact = clopper_pearson(successes, trials)
    if successes:
        assert stats.binom.sf(successes - 1, trials, exact.lower) == pytest.approx(0.025, rel=1e-6)
    if successes < trials:
        assert stats.binom.cdf(successes, trials, exact.upper) == pytest.approx(0.025, rel=1e-6)


def test_known_values():
    assert wilson(50, 50).lower == pytest.approx(0.9287, abs=1e-4)
    assert wilson(49, 50).lower == pytest.approx(0.8950, abs=1e-4)
    assert clopper_pearson(0, 10).upper == pytest.approx(0.3085, abs=1e-4)


@INTERVALS
@pytest.mark.parametrize("arguments", [(1, 0), (3, 2), (-1, 2), (1, 2, 1.0), (1, 2, 0.0)])
def test_impossible_counts(interval, arguments):
    with pytest.raises(ConfigError, match="impossible"):
        interval(*arguments)


@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_mcnemar_is_symmetric_and_counts_everything(pairs):
    first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    forward, backward = mcnemar(first, second), mcnemar(second, first)
    assert forward.p_value == pytest.approx(backward.p_value)
    assert (forward.only_first, forward.only_second) == (backward.only_second, backward.only_first)
    assert forward.both + forward.neither + forward.only_first + forward.only_second == len(pairs)
    assert 0.0 < forward.p_value <= 1.0
    agreeing = mcnemar([*first, True, False], [*second, True, False])
    assert agreeing.p_value == forward.p_value


def test_mcnemar_by_hand():
    assert mcnemar([True] * 6, [False] * 6).p_value == pytest.approx(2 * 0.5**6)
    with pytest.raises(ConfigError, match="same seeds"):
        mcnemar([True], [])


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), gaps=st.integers(0, 5))
def test_percentiles_are_ordered_and_ignore_what_is_unknown(values, gaps):
    got = percentiles(np.array([*values, *[np.nan] * gaps]))
    assert list(got) == ["p50", "p95", "p99", "p100"]
    assert list(got.values()) == sorted(got.values())
    assert got["p100"] == max(values)
    assert percentiles(np.full(gaps, np.nan)) == {}
