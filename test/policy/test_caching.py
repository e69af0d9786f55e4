from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.caching.block import BlockCache
from dit_policy_ros.policy.caching.block_schedule import (
    bubbled,
    bubbled_paper,
    caching_error,
    cosine_similarity,
    segments_worth,
    update_steps,
    update_steps_paper,
)
from dit_policy_ros.policy.caching.modules import cached
from dit_policy_ros.policy.caching.taylorseer import TaylorCache, full_steps
from dit_policy_ros.policy.samplers import euler
from dit_policy_ros.policy.schedules import uniform_times


def test_full_steps_of_both_rules():
    def listed(*arguments, **named):
        return [step for step, full in enumerate(full_steps(*arguments, **named)) if full]

    assert listed(12, 4, 2) == [0, 1, 5, 9]
    assert listed(12, 4, 3, "fixed") == [0, 1, 2, 4, 8]
    assert listed(12, 4, 2, cooldown_from=10) == [0, 1, 5, 9, 10, 11]
    assert listed(5, 1, 1) == [0, 1, 2, 3, 4]
    with pytest.raises(PolicyError, match="Available: fixed, restart"):
        full_steps(5, 1, 1, "often")
    with pytest.raises(PolicyError, match="at least 1"):
        full_steps(5, 0, 1)


def run(cache, features):
    return [cache(step, lambda feature=feature: feature).item() for step, feature in enumerate(features)]


@pytest.mark.parametrize(("order", "power"), [(0, 0), (1, 1)])
def test_a_forecast_is_exact_up_to_its_order(order, power):
    features = torch.tensor([float(step**power) for step in range(12)])
    full = full_steps(12, 4, 2)
    assert run(TaylorCache(full, order), features) == pytest.approx(features.tolist())
    if power:
        assert run(TaylorCache(full, order - 1), features) != pytest.approx(features.tolist())


def test_features_of_skipped_steps_are_never_computed():
    calls = []
    cache = TaylorCache(full_steps(10, 3, 2), 1)
    for step in range(10):
        cache(step, lambda step=step: calls.append(step) or torch.zeros(1))
    assert calls == [0, 1, 4, 7]
    with pytest.raises(PolicyError, match="expects to have 10 steps"):
        cache(10, lambda: torch.zeros(1))


def test_differences_start_where_they_are_told_to():
    features = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    full = (True, True, True, False, True, False)
    late = TaylorCache(full, 1, differences_from=3)
    assert run(late, features) == [0.0, 1.0, 2.0, 2.0, 4.0, 5.0]


def test_a_block_cache_repeats_its_last_update():
    features = torch.arange(6.0)
    assert run(BlockCache((True, False, False, True, False, False)), features) == [0, 0, 0, 3, 3, 3]
    # Before the first update step there is nothing to repeat.
    assert run(BlockCache((False, False, True, False)), features[:4]) == [0, 1, 2, 2]
    with pytest.raises(PolicyError, match="expects to have 1 steps"):
        BlockCache((True,))(1, lambda: features)


@given(st.integers(2, 9), st.data())
@settings(deadline=None, max_examples=40)
def test_update_steps_are_the_best_of_all(steps, data):
    count = data.draw(st.integers(1, steps))
    maximise = data.draw(st.booleans())
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    similarity = rng.normal(size=(steps, steps))
    chosen = update_steps(similarity, count, maximise)
    assert chosen[0] == 0
    assert len(set(chosen)) == count
    worths = [segments_worth(similarity, (0, *rest)) for rest in combinations(range(1, steps), count - 1)]
    assert segments_worth(similarity, chosen) == pytest.approx(max(worths) if maximise else min(worths))


@given(st.integers(2, 12), st.data())
def test_the_paper_updates_where_features_change_most(steps, data):
    count = data.draw(st.integers(1, steps))
    adjacent = np.random.default_rng(data.draw(st.integers(0, 1000))).normal(size=steps - 1)
    chosen = update_steps_paper(adjacent, count)
    assert chosen[0] == 0
    assert list(chosen) == sorted(set(chosen))
    kept = [adjacent[k - 1] for k in range(1, steps) if k not in chosen]
    dropped = [adjacent[k - 1] for k in chosen[1:]]
    assert not kept or not dropped or max(dropped) <= min(kept)


def test_more_updates_than_steps_are_refused():
    with pytest.raises(PolicyError, match="allowed are 1 to 3"):
        update_steps(np.eye(3), 4)
    with pytest.raises(PolicyError, match="allowed are 1 to 3"):
        update_steps_paper(np.zeros(2), 0)


def test_similarity_of_features():
    features = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(cosine_similarity(features), [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=1e-12)
    assert caching_error(features) == pytest.approx(2 * (1 + 2 + 3) / 9)
    assert caching_error(features, paper=False) == pytest.approx((1 + 2 + 3) / 6)


def test_unions_only_add_steps_and_only_from_deeper_blocks():
    rng = np.random.default_rng(0)
    update = rng.random((4, 3, 10)) < 0.3
    after = bubbled(update, [(1, 0), (3, 2)])
    assert (after | update == after).all()
    assert (after[1, 0] == (update[1, 0] | update[1:, 2].any(axis=0))).all()
    assert (after[3, 2] == update[3, 2]).all()
    assert (bubbled(update, [(1, 0)]) == update).all()
    error = np.array([3.0, 1.0, 2.0, 0.0])
    selected, paper = bubbled_paper(update[:, 2], error, 2)
    assert selected == (0, 2)
    assert (paper[0] == (update[0, 2] | update[2, 2])).all()
    _, downstream = bubbled_paper(update[:, 2], error, 2, all_downstream=True)
    assert (downstream[0] == update[:, 2].any(axis=0)).all()
    assert (downstream[2] == (update[2, 2] | update[3, 2])).all()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0
        self.layer = nn.Linear(3, 3)

    def forward(self, x, scale=1.0):
        self.calls += 1
        return scale * torch.tanh(self.layer(x))


def test_caches_go_around_modules_of_any_network_and_come_off_again():
    torch.manual_seed(0)
    first, second = Block(), Block()
    x, times = torch.randn(2, 4, 3), uniform_times(12)

    def velocity(x, t):
        return x + first(x, scale=0.1) + 0.1 * second(x)

    exact = euler(velocity, x, times)
    first.calls = second.calls = 0
    caches = {first: TaylorCache(full_steps(12, 4, 2), 1), second: BlockCache([step % 3 == 0 for step in range(12)])}
    with cached(caches) as counter:
        fast = euler(counter.wrap(velocity), x, times)
    assert (first.calls, second.calls) == (4, 4)
    assert not torch.equal(fast, exact)
    torch.testing.assert_close(fast, exact, atol=0.05, rtol=0)
    assert torch.equal(euler(velocity, x, times), exact)


def test_a_cache_that_computes_every_step_changes_nothing():
    torch.manual_seed(0)
    block, x = Block(), torch.randn(2, 4, 3)
    exact = euler(lambda x, t: block(x), x, uniform_times(6))
    for cache in (TaylorCache((True,) * 6, 2), BlockCache((True,) * 6)):
        with cached({block: cache}) as counter:
            assert torch.equal(euler(counter.wrap(lambda x, t: block(x)), x, uniform_times(6)), exact)


def test_caches_come_off_after_an_error():
    block = Block()
    with pytest.raises(ValueError, match="stop"), cached({block: BlockCache((True,))}):
        raise ValueError("stop")
    assert "forward" not in block.__dict__
