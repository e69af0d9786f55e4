from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.runtime.schedule import (
    LoopState,
    ScheduleConfig,
    chunk_due,
    commit_steps,
    encode_due,
    ended,
    fitted,
    next_chunk_ns,
    started,
)
from dit_policy_ros.types import Context

MS = 1_000_000
CONFIG = ScheduleConfig(execution_horizon_s=0.2)


def context(epoch: int) -> Context:
    return Context(0, "", epoch, {})


def test_the_slow_loop_starts_on_every_newer_observation_once_idle():
    idle = LoopState()
    assert not encode_due(idle, CONFIG, 1000 * MS, None, 1)
    assert encode_due(idle, CONFIG, 1000 * MS, 980 * MS, 1)
    running = started(idle, 1000 * MS, 980 * MS, 1)
    assert not encode_due(running, CONFIG, 1100 * MS, 1060 * MS, 1)
    again = ended(running)
    assert not encode_due(again, CONFIG, 1100 * MS, 980 * MS, 1)
    assert encode_due(again, CONFIG, 1100 * MS, 1060 * MS, 1)


def test_the_slow_loop_can_be_held_to_a_period():
    config = ScheduleConfig(encode_period_s=0.5)
    idle = ended(started(LoopState(), 1000 * MS, 980 * MS, 1))
    assert not encode_due(idle, config, 1499 * MS, 1490 * MS, 1)
    assert encode_due(idle, config, 1500 * MS, 1490 * MS, 1)
    assert encode_due(idle, config, 1100 * MS, 980 * MS, 2)


def test_the_fast_loop_plans_at_its_horizon():
    idle = LoopState()
    assert next_chunk_ns(idle, CONFIG) == 0
    assert chunk_due(idle, CONFIG, 1000 * MS, 990 * MS, context(1), 1)
    idle = ended(started(idle, 1000 * MS, 990 * MS, 1))
    assert next_chunk_ns(idle, CONFIG) == 1190 * MS
    assert not chunk_due(idle, CONFIG, 1189 * MS, 1180 * MS, context(1), 1)
    assert chunk_due(idle, CONFIG, 1190 * MS, 1180 * MS, context(1), 1)
    assert not chunk_due(idle, CONFIG, 1190 * MS, 990 * MS, context(1), 1)
    assert chunk_due(idle, ScheduleConfig(execution_horizon_s=0.1), 1090 * MS, 1080 * MS, context(1), 1)


def test_a_new_epoch_plans_at_once_but_only_with_its_own_context():
    idle = ended(started(LoopState(), 1000 * MS, 990 * MS, 1))
    assert not chunk_due(idle, CONFIG, 1010 * MS, 990 * MS, context(1), 2)
    assert not chunk_due(idle, CONFIG, 1010 * MS, 990 * MS, None, 2)
    assert chunk_due(idle, CONFIG, 1010 * MS, 990 * MS, context(2), 2)
    assert not chunk_due(started(idle, 1010 * MS, 990 * MS, 2), CONFIG, 1300 * MS, 1290 * MS, context(2), 2)
    assert encode_due(idle, CONFIG, 1010 * MS, 990 * MS, 2)


def test_late_observations_are_ignored_and_a_clock_that_jumped_back_is_followed():
    idle = ended(started(LoopState(), 9000 * MS, 9000 * MS, 1))
    for due in (
        lambda ns: encode_due(idle, CONFIG, ns, ns, 1),
        lambda ns: chunk_due(idle, CONFIG, ns, ns, context(1), 1),
    ):
        assert not due(8900 * MS)
        assert due(100 * MS)


@given(st.integers(0, 3000 * MS), st.sampled_from([1, 2, 4, 5]), st.sampled_from([10, 20, 40]))
def test_the_prefix_covers_the_delay_in_whole_multiples(delay_ns, multiple, step_ms):
    steps = commit_steps(delay_ns, step_ms * MS, multiple, CONFIG)
    assert steps % multiple == 0
    assert 0 <= steps <= CONFIG.commit_max_steps
    assert steps * step_ms * MS >= delay_ns + 10 * MS or steps > CONFIG.commit_max_steps - multiple
    assert (steps - multiple) * step_ms * MS < delay_ns + 10 * MS


@pytest.mark.parametrize(
    ("delay_ms", "config", "expected"),
    [
        (None, {}, 8),
        (None, {"first_delay_s": 0.06}, 4),
        (60, {}, 4),
        (80, {}, 8),
        (80, {"delay_margin_s": 0.0}, 4),
        (0, {"commit_min_steps": 5}, 8),
        (2000, {}, 24),
        (2000, {"commit_max_steps": 10}, 8),
    ],
)
def test_prefix_examples(delay_ms, config, expected):
    delay_ns = None if delay_ms is None else delay_ms * MS
    assert commit_steps(delay_ns, 20 * MS, 4, ScheduleConfig(**config)) == expected


def test_the_horizon_fits_the_chunk_unless_it_is_given():
    assert fitted(ScheduleConfig(), 960 * MS).execution_horizon_s == 0.64
    assert fitted(ScheduleConfig(), 960 * MS, preferred_s=0.3).execution_horizon_s == 0.3
    assert fitted(CONFIG, 960 * MS, preferred_s=0.3) is CONFIG
