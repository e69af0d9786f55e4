"""The sequential rule: its error rates by exact computation and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dit_policy_ros.errors import ConfigError
from dit_policy_ros.evaluate.sequential import (
    CONTINUE,
    FIRST,
    NONE,
    SECOND,
    crossing_probability,
    log_evidence,
    sequential_test,
    threshold,
)


def simulate(first, second, shared, most_pairs, alpha, runs, seed):
    """Outcomes of two policies; ``shared`` is how much of a seed's difficulty both feel."""
    rng = np.random.default_rng(seed)
    hard = rng.random((runs, most_pairs))
    own = rng.random((2, runs, most_pairs))
    luck = np.where(rng.random((2, runs, most_pairs)) < shared, hard, own)
    wins = luck < np.array([first, second])[:, None, None]
    return [sequential_test(wins[0, k], wins[1, k], most_pairs, alpha) for k in range(runs)]


@pytest.mark.parametrize(("rate", "shared"), [(0.5, 0.0), (0.5, 0.7), (0.9, 0.0), (0.2, 0.5)])
def test_equal_policies_are_told_apart_no_more_often_than_stated(rate, shared):
    runs, alpha = 1500, 0.05
    results = simulate(rate, rate, shared, most_pairs=80, alpha=alpha, runs=runs, seed=1)
    errors = sum(result.verdict in (FIRST, SECOND) for result in results)
    assert errors / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


def test_a_fixed_test_looked_at_after_every_pair_would_err_far_more_often():
    """What the rule is for: the same data, with McNemar's exact test at every look."""
    from scipy import stats

    rng = np.random.default_rng(1)
    wins = rng.random((2, 300, 80)) < 0.5
    steps = np.cumsum(wins[0].astype(int) - wins[1], axis=1), np.cumsum(wins[0] != wins[1], axis=1)
    difference, count = steps
    larger = (count + np.abs(difference)) // 2
    p_values = np.minimum(1.0, 2 * stats.binom.sf(larger - 1, np.maximum(count, 1), 0.5))
    assert (p_values.min(axis=1) < 0.05).mean() > 0.12


def test_a_better_policy_is_found_and_early():
    results = simulate(0.85, 0.45, 0.0, most_pairs=100, alpha=0.05, runs=400, seed=2)
    verdicts = [result.verdict for result in results]
    assert verdicts.count(FIRST) / len(verdicts) > 0.97
    assert verdicts.count(SECOND) == 0
    stopped = [result.stopped_after for result in results if result.verdict == FIRST]
    assert np.median(stopped) < 45
    mirrored = simulate(0.45, 0.85, 0.0, most_pairs=100, alpha=0.05, runs=100, seed=3)
    assert sum(result.verdict == SECOND for result in mirrored) > 95


@pytest.mark.parametrize("most_pairs", [10, 50, 200])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_the_threshold_spends_its_error_and_no_more(most_pairs, alpha):
    level = threshold(most_pairs, alpha)
    assert level <= -math.log(alpha)
    assert crossing_probability(most_pairs, level) <= alpha
    # Reaching it needs a whole win, so the next lower value of the evidence would spend too much.
    assert crossing_probability(most_pairs, level - 0.02) > alpha or level > 0.99 * -math.log(alpha)


def test_the_probability_is_that_of_a_count_of_all_walks():
    level, pairs = 1.2, 9
    crossed = 0
    for walk in range(2**pairs):
        wins = 0
        for step in range(pairs):
            wins += (walk >> step) & 1
            if log_evidence(wins, step + 1 - wins) >= level:
                crossed += 1
                break
    assert crossing_probability(pairs, level) == pytest.approx(crossed / 2**pairs)


@settings(deadline=None, max_examples=50)
@given(outcomes=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_policies_exchanged_give_the_mirrored_verdict_and_later_pairs_change_nothing(outcomes):
    first, second = zip(*outcomes, strict=True)
    result, mirrored = sequential_test(first, second, 60), sequential_test(second, first, 60)
    swap = {FIRST: SECOND, SECOND: FIRST}
    assert mirrored.verdict == swap.get(result.verdict, result.verdict)
    np.testing.assert_array_equal(result.evidence, mirrored.evidence)
    if result.stopped_after is not None and result.verdict != NONE:
        cut = result.stopped_after
        assert sequential_test(first[:cut], second[:cut], 60).verdict == result.verdict
        assert sequential_test(first[: cut - 1], second[: cut - 1], 60).verdict == CONTINUE


def test_pairs_in_which_both_agree_say_nothing():
    assert sequential_test([True, False] * 20, [True, False] * 20, 40).verdict == NONE
    result = sequential_test([True] * 10, [True] * 10, 40)
    assert (result.verdict, result.stopped_after) == (CONTINUE, None)
    np.testing.assert_array_equal(result.evidence, 0.0)


def test_what_is_impossible_is_refused():
    with pytest.raises(ConfigError, match="2 outcomes cannot be paired with 1"):
        sequential_test([True, True], [True], 5)
    with pytest.raises(ConfigError, match=r"0 pairs at 0\.05 is impossible"):
        threshold(0, 0.05)
    with pytest.raises(ConfigError, match="at 1 is impossible"):
        threshold(5, 1.0)
