"""The loops of the two systems without threads: what they start, what they drop, what they count."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.actions.timing import Timing
from dit_policy_ros.runtime import incidents
from dit_policy_ros.runtime.event_log import KINDS, EventLog
from dit_policy_ros.runtime.fast_system import FastSystem
from dit_policy_ros.runtime.incidents import Incidents, count_stale
from dit_policy_ros.runtime.rerun import rerun_fast
from dit_policy_ros.runtime.schedule import ScheduleConfig
from dit_policy_ros.runtime.seam_window import SeamWindow
from dit_policy_ros.runtime.slow_system import SlowSystem
from dit_policy_ros.runtime.stages import STAGES, Stages
from dit_policy_ros.types import ActionChunk, Context, Observation

MS = 1_000_000
STEP = 20 * MS
POLICY = SimpleNamespace(step_ns=STEP, horizon=25, commit_multiple=4)


def observation(stamp_ms):
    return Observation(stamp_ms * MS, {"a": 0.0})


def context(stamp_ms, epoch=1, tensors=True):
    return Context(stamp_ms * MS, "go", epoch, {"x": np.zeros(1)} if tensors else {})


def chunk(start_ms, count=25):
    return ActionChunk(("a",), start_ms * MS, STEP, np.zeros((count, 1)))


def nothing(start_ns, step_ns, count):
    return None


@pytest.fixture
def fast():
    system = FastSystem(POLICY, ScheduleConfig(execution_horizon_s=0.2))
    system.hear(context(900))
    return system


def plan_once(system, now_ms, took_ms, commit=nothing):
    job = system.begin(now_ms * MS, observation(now_ms), commit)
    return system.finish(job, chunk(now_ms), (now_ms + took_ms) * MS)


def test_a_chunk_carries_where_it_came_from(fast):
    made = plan_once(fast, 1000, 60)
    assert (made.observation_ns, made.context_ns, made.epoch) == (1000 * MS, 900 * MS, 1)
    assert [event.kind for event in fast.events.decisions()] == ["act", "chunk"]
    assert fast.events.of("chunk")[0].delay_ns == 60 * MS


def test_the_prefix_grows_with_the_delay_of_a_sliding_window_without_the_first(fast):
    asked = []

    def commit(start_ns, step_ns, count):
        asked.append(count)
        return ActionChunk(("a",), start_ns, step_ns, np.zeros((count, 1)), committed=count)

    for k, took_ms in enumerate([2000, 60, 60, 300, *[60] * 60]):
        plan_once(fast, 10_000 * (k + 1), took_ms, commit)
    # 100 ms are assumed at first; the warm-up counts until another was measured, the slow one while it is known, as
    # far as a horizon goes.
    assert asked[:3] == [8, 24, 4]
    assert asked[4] == 12
    assert asked[-1] == 4
    assert fast.incidents[incidents.SHORT_PREFIX] == 2


def prefixes(delays_ms, policy=POLICY, horizon_s=0.32):
    """The lengths that are asked for, chunk after chunk, when each takes so long."""
    system, asked = FastSystem(policy, ScheduleConfig(execution_horizon_s=horizon_s)), []
    system.hear(context(900))
    for k, took_ms in enumerate(delays_ms):
        plan_once(system, 10_000 * (k + 1), took_ms, lambda start_ns, step_ns, count: asked.append(count))
    return asked


@pytest.mark.parametrize("spike_ms", [1000, 700, 480])
@pytest.mark.parametrize("every", [20, 10])
def test_spikes_lengthen_no_prefix_beyond_a_horizon_and_none_if_their_chunks_are_lost(spike_ms, every):
    delays_ms = [60, 60, *([spike_ms, *[60] * (every - 1)] * 6)]
    asked = prefixes(delays_ms)[2:]
    calm = prefixes([60] * len(delays_ms))[2:]
    assert set(calm) == {4}
    if spike_ms >= 500:  # Longer than the chunk.
        assert asked == calm
    else:
        assert 4 < max(asked) <= 16


@given(st.lists(st.integers(10, 2000), min_size=3, max_size=80), st.sampled_from([0.1, 0.2, 0.32]))
def test_a_prefix_covers_the_usual_delay_and_no_more_than_that_or_a_horizon(delays_ms, horizon_s):
    asked = prefixes(delays_ms, horizon_s=horizon_s)[-1]
    known = sorted(delay_ms for delay_ms in delays_ms[1:-1][-50:] if delay_ms < 500)
    assert asked % 4 == 0
    assert asked <= ScheduleConfig().commit_max_steps
    if len(known) < len(delays_ms) - 2:  # The window then holds older ones too.
        return
    usual_ms = known[(len(known) - 1) // 2]
    assert asked * 20 >= usual_ms or asked == 24
    assert asked * 20 <= max(usual_ms, 1000 * horizon_s) + 10 + 4 * 20


@given(st.integers(10, 499), st.integers(3, 60))
def test_a_constant_delay_is_always_covered(delay_ms, count):
    asked = prefixes([delay_ms] * count)[-1]
    assert asked * 20 >= min(delay_ms, 480)


def test_results_of_an_old_epoch_are_dropped_and_counted(fast):
    job = fast.begin(1000 * MS, observation(1000), nothing)
    fast.hear(context(1000, epoch=2, tensors=False))
    assert fast.finish(job, chunk(1000), 1060 * MS) is None
    assert fast.context is None
    assert not fast.due(1200 * MS, 1190 * MS, None)
    fast.hear(context(950, epoch=1))
    assert fast.context is None
    fast.hear(context(1100, epoch=2))
    assert fast.due(1200 * MS, 1190 * MS, None)
    assert fast.incidents[incidents.OLD_EPOCH] == 2


def test_at_news_a_chunk_is_planned_before_its_time_and_only_one():
    def differs(before, other):
        return bool(before.tensors["x"] != other.tensors["x"])

    policy = SimpleNamespace(**vars(POLICY), is_news=differs)
    system = FastSystem(policy, ScheduleConfig(execution_horizon_s=0.5))
    old, new = context(900), Context(1000 * MS, "go", 1, {"x": np.ones(1)})
    system.hear(old)
    plan_once(system, 1000, 60)
    for heard, is_due in ((old, False), (new, True)):
        system.hear(heard)
        assert system.due(1200 * MS, 1190 * MS, None) == is_due
    plan_once(system, 1200, 60)
    system.hear(new)
    assert not system.due(1300 * MS, 1290 * MS, None)
    assert [event.committed for event in system.events.of("heard")] == [1, 1, 2, 1]
    decided = rerun_fast(system.events, policy, ScheduleConfig(execution_horizon_s=0.5)).of("heard")
    assert [event.committed for event in decided] == [1, 1, 2, 1]
    system.hear(Context(1100 * MS, "stop", 2, {"x": np.zeros(1)}))
    assert not system.news
    deaf = FastSystem(POLICY, ScheduleConfig(execution_horizon_s=0.5))
    deaf.hear(old)
    plan_once(deaf, 1000, 60)
    deaf.hear(new)
    assert not deaf.due(1200 * MS, 1190 * MS, None)


def test_a_policy_may_prefer_a_horizon():
    policy = SimpleNamespace(**vars(POLICY), execution_horizon_s=0.1)
    assert FastSystem(policy, ScheduleConfig()).config.execution_horizon_s == 0.1
    assert FastSystem(policy, ScheduleConfig(execution_horizon_s=0.2)).config.execution_horizon_s == 0.2
    assert FastSystem(POLICY, ScheduleConfig()).config.execution_horizon_s == pytest.approx(1 / 3, abs=0.001)


def test_overruns_and_missed_deadlines_are_told_apart(fast):
    plan_once(fast, 1000, 60)
    assert not +fast.incidents
    plan_once(fast, 1200, 250)
    assert fast.incidents == {**dict.fromkeys(fast.incidents, 0), incidents.ACT_OVERRUN: 1}
    plan_once(fast, 1500, 900)
    assert fast.incidents[incidents.ACT_OVERRUN] == 2
    assert fast.incidents[incidents.MISSED_DEADLINE] == 1


def test_a_failure_frees_the_loop(fast):
    fast.begin(1000 * MS, observation(1000), nothing)
    assert not fast.due(2000 * MS, 1990 * MS, None)
    fast.fail()
    assert fast.due(2000 * MS, 1990 * MS, None)
    assert fast.incidents[incidents.FAILED] == 1


def test_a_clock_that_jumped_back_is_counted(fast):
    plan_once(fast, 9000, 60)
    assert fast.due(100 * MS, 100 * MS, None)
    plan_once(fast, 100, 60)
    assert fast.incidents[incidents.CLOCK_JUMP] == 1


def test_stop_and_think_waits_for_rest_twice():
    timing = Timing(False, starts_at_arrival=True, waits_for_rest=True, executes=0.5)
    fast, slow = (
        FastSystem(POLICY, ScheduleConfig(execution_horizon_s=0.2), timing),
        SlowSystem(ScheduleConfig(), timing),
    )
    slow.instruct("go", 1)
    fast.hear(context(900))
    made = plan_once(fast, 1000, 100)
    assert (made.start_ns, len(made.actions)) == (1100 * MS, 12)
    running = ActionChunk(("a",), 1100 * MS, STEP, np.zeros((20, 1)))  # to rest at 1480 ms
    assert not slow.due(1470 * MS, 1470 * MS, running)
    assert slow.due(1490 * MS, 1480 * MS, running)
    assert not fast.due(1490 * MS, 1480 * MS, running), "the context is from before"
    fast.hear(context(1480))
    assert fast.due(1790 * MS, 1780 * MS, running)


def test_the_slow_system_drops_what_belongs_to_the_old_instruction():
    slow = SlowSystem(ScheduleConfig(encode_period_s=0.1))
    assert not slow.due(1000 * MS, 990 * MS)
    slow.instruct("red", 1)
    assert slow.due(1000 * MS, 990 * MS)
    job = slow.begin(1000 * MS, observation(990))
    assert (job.instruction, job.epoch) == ("red", 1)
    slow.instruct("blue", 2)
    assert slow.finish(job, context(990), 1300 * MS) is None
    assert (slow.incidents[incidents.OLD_EPOCH], slow.incidents[incidents.ENCODE_OVERRUN]) == (1, 1)
    job = slow.begin(1300 * MS, observation(1290))
    made = context(1290, epoch=2)
    assert slow.finish(job, made, 1350 * MS) is made
    assert slow.incidents[incidents.ENCODE_OVERRUN] == 1
    slow.begin(1400 * MS, observation(1390))
    slow.fail()
    assert slow.incidents[incidents.FAILED] == 1
    slow.begin(100 * MS, observation(90))
    assert slow.incidents[incidents.CLOCK_JUMP] == 1


def test_a_clock_that_goes_ahead_while_nothing_is_done_is_counted_and_a_long_inference_is_not(fast):
    for now_ms in (1000, 1020, 1900):
        fast.due(now_ms * MS, None, None)
    plan_once(fast, 1920, 5000)
    fast.due(6920 * MS, None, None)
    assert fast.incidents[incidents.CLOCK_AHEAD] == 0
    fast.due(8000 * MS, None, None)
    fast.due(8020 * MS, None, None)
    assert fast.incidents[incidents.CLOCK_AHEAD] == 1


def test_missing_observations_are_counted_by_their_kind():
    counts = Incidents()
    count_stale(counts, "camera stale: top is 0.510 s old (limit 0.5 s)")
    count_stale(counts, "camera stale: top is 0.530 s old (limit 0.5 s)")
    assert counts == {"no observation: camera stale": 2}


def test_events_are_kept_up_to_a_number_and_as_plain_data():
    log = EventLog(size=3)
    for k, kind in enumerate(["image", "act", "heard", "chunk", "act"]):
        log.add(kind, 10 * k, 7, epoch=k)
    assert [event.kind for event in log] == ["heard", "chunk", "act"]
    assert len(log) == 3
    assert [entry["epoch"] for entry in log.to_list()] == [2, 3, 4]
    assert [event.stamp_ns for event in log.of("act")] == [40]
    assert [event.kind for event in log.decisions()] == ["chunk", "act"]
    assert set(KINDS) > {"image", "act", "heard", "chunk"}


def test_a_chunk_that_was_just_handed_out_counts_as_planned(fast):
    before = ActionChunk(("a",), 0, STEP, np.ones((100, 1)), observation_ns=500 * MS)
    made = plan_once(fast, 1000, 60)
    expected = fast.expected(before, 1070 * MS)
    assert (expected.observation_ns, expected.end_ns) == (made.observation_ns, made.end_ns)
    assert expected.actions[:53].min() == 1.0
    assert expected.actions[53:].max() == 0.0
    assert fast.expected(before, 1200 * MS) is before
    shown = ActionChunk(("a",), 0, STEP, np.ones((100, 1)), observation_ns=1000 * MS)
    assert fast.expected(shown, 1070 * MS) is shown


def test_stages_measure_what_is_done_inside_also_where_it_fails():
    times = iter([0, 9 * MS, 100 * MS, 103 * MS, 200 * MS, 205 * MS])
    stages = Stages(lambda: next(times))
    assert stages.measure() == {}
    with stages.time("act"):
        pass
    with stages.time("act"):
        pass
    with pytest.raises(ZeroDivisionError), stages.time("act"):
        _ = 1 // 0
    assert stages.measure() == {"act p50_ms": 3.0, "act p95_ms": 5.0, "act p99_ms": 5.0}
    with pytest.raises(KeyError):
        stages.add("dream", 1)
    assert set(STAGES) >= {"receive", "decode", "synchronise", "encode", "act", "fuse", "publish"}


def test_a_window_of_seams_tells_the_newest_only():
    from dit_policy_ros.actions.smoothness import seam_of

    window = SeamWindow(size=2)
    plan = ActionChunk(("a",), 0, STEP, 0.02 * np.arange(20.0)[:, None])
    window.add(seam_of(None, plan, 0))
    assert window.measure() == {}
    for offset, speed in ((5.0, 0.02), (0.1, 0.02), (0.2, -0.4)):
        actions = 0.1 + offset + speed * np.arange(20.0)[:, None]
        window.add(seam_of(plan, ActionChunk(("a",), 5 * STEP, STEP, actions, 3 * STEP, 0), 5 * STEP))
    measured = window.measure()
    assert measured["jump at a seam p99"] == pytest.approx(0.2, abs=0.01)
    assert measured["seams that step back_percent"] == 50.0
    assert measured["delay consumed p95_s"] == pytest.approx(0.04)
    assert measured["context age at the seam_s"] == pytest.approx(0.1)
