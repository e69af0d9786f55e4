"""Pooled smoothness, points of a sweep with their intervals, live seams, and the pages that show them."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from test_report import NAMES, STEPS, record, report

from dit_policy_ros.actions.smoothness import seam_of
from dit_policy_ros.errors import ConfigError
from dit_policy_ros.evaluate.live import Received, live_context_wait, live_seams, live_smoothness, stages_of
from dit_policy_ros.evaluate.page import render_page
from dit_policy_ros.evaluate.smoothness import STEP_BACK_MEANS, smoothness_of, summary
from dit_policy_ros.evaluate.statistics import bootstrap
from dit_policy_ros.evaluate.sweep import (
    ACTION_DELAYS_S,
    CONTEXT_DELAYS_S,
    Condition,
    Point,
    Sweep,
    curves,
    point_of,
    write_json,
)
from dit_policy_ros.evaluate.sweep_page import render_sweep
from dit_policy_ros.evaluate.sweep_table import table
from dit_policy_ros.types import ActionChunk

MS = 1_000_000
STEP = 20 * MS


def chunk(start_ms, offset=0.0, speed=0.1, observation_ms=None, count=20):
    actions = offset + speed * 0.02 * np.arange(count)[:, None] * np.ones((1, len(NAMES)))
    observation_ns = (start_ms if observation_ms is None else observation_ms) * MS
    return ActionChunk(NAMES, start_ms * MS, STEP, actions, observation_ns, observation_ns, 1)


def smooth(jump=0.1, pauses=0, steps=STEPS):
    seams = [seam_of(None, chunk(0), 0), seam_of(chunk(0), chunk(100, 0.01 + jump), 100 * MS)]
    commanded = np.cumsum(np.full((steps, len(NAMES)), 0.002), axis=0)
    planned = np.ones(steps, dtype=bool)
    planned[5 : 5 + pauses] = False
    return smoothness_of(seams, commanded, 0.02, planned, np.full(steps, 0.1))


def two_seams(smoothness):
    return {"smoothness": smoothness, "splice_times_s": np.array([0.1, 0.2])}


def test_pauses_are_counted_from_the_first_chunk_on():
    commanded, planned = np.zeros((10, 2)), np.array([0, 0, 1, 1, 0, 1, 1, 1, 1, 1], dtype=bool)
    figures = summary([smoothness_of((), commanded, 0.02, planned, np.full(10, np.nan))])
    assert figures["unplanned_share"] == pytest.approx(1 / 8)
    never = summary([smoothness_of((), commanded, 0.02, np.zeros(10, dtype=bool), np.full(10, np.nan))])
    assert never["unplanned_share"] is None
    assert never["seam_position"] == {}


def test_figures_of_several_episodes_are_pooled():
    figures = summary([smooth(0.1), smooth(0.3, pauses=2)])
    assert figures["seam_position"]["p100"] == pytest.approx(0.3)
    assert figures["seam_position"]["p50"] == pytest.approx(0.2)
    assert figures["commanded_second_difference"]["p100"] == pytest.approx(0.0, abs=1e-12)
    assert figures["unplanned_share"] == pytest.approx(1 / STEPS)
    assert figures["seams_backwards"] == 0.0
    json.dumps(figures, allow_nan=False)


def test_the_bootstrap_covers_the_figure_and_is_repeatable():
    values = list(np.random.default_rng(0).normal(3.0, 1.0, 200))
    interval = bootstrap(values, lambda drawn: float(np.mean(drawn)))
    assert interval.lower < 3.0 < interval.upper
    assert interval.upper - interval.lower == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.3)
    assert bootstrap(values, lambda drawn: float(np.mean(drawn))) == interval
    assert np.isnan(bootstrap([], np.mean).lower)


def test_a_sweep_has_both_curves_for_every_method_and_no_point_twice():
    conditions = curves(("a", "b"), Condition("", 0.3, 0.06, "jitter"))
    assert len(set(conditions)) == len(conditions) == 2 * (len(CONTEXT_DELAYS_S) + len(ACTION_DELAYS_S) - 1)
    assert {condition.pattern for condition in conditions} == {"jitter"}
    assert {c.context_delay_s for c in conditions if c.method == "b" and c.action_delay_s == 0.06} == set(
        CONTEXT_DELAYS_S
    )


def point(method, jump, outcomes, context_delay_s=0.3, pauses=0):
    condition = Condition(method, context_delay_s, 0.06)
    records = [
        record(seed, "strict" if good else "failure", **two_seams(smooth(jump, pauses)), incidents={"x": 1})
        for seed, good in enumerate(outcomes)
    ]
    return point_of(condition, records[::-1])


def make_sweep():
    points = tuple(
        point(method, jump, outcomes, delay_s)
        for method, jump, outcomes in (
            ("prefix", 0.01, [1, 1, 1, 1, 1, 1, 1, 0]),
            ("naive", 0.2, [1, 0, 0, 0, 0, 0, 0, 0]),
        )
        for delay_s in (0.0, 0.3)
    )
    return Sweep("aloha_transfer_cube", "demo", "ab" * 32, points, "python -m x", "2026-01-01T00:00:00+00:00", {})


def test_a_point_knows_its_interval_and_survives_a_file(tmp_path):
    made = point("naive", 0.2, [1, 0, 1, 0], pauses=2)
    assert (made.seeds, made.successes) == ((0, 1, 2, 3), 2)
    assert made.interval.lower < 0.5 < made.interval.upper
    assert made.metrics["incidents"] == {"x": 4}
    assert made.intervals["seam_position_p99"] == pytest.approx([0.2, 0.2])
    assert Point.from_dict(json.loads(json.dumps(made.to_dict(), allow_nan=False))) == made
    with pytest.raises(ConfigError, match="at least one"):
        point_of(Condition("", 0.0, 0.0), [])


def test_methods_are_compared_on_the_same_seeds(tmp_path):
    sweep = make_sweep()
    first, _, naive, _ = sweep.points
    assert sweep.against(first) is None
    assert sweep.against(naive) == pytest.approx(2 * 0.5**6)
    data = json.loads(write_json(sweep, tmp_path).read_text())
    assert data["kind"] == "sweep"
    assert [entry["p_value"] is None for entry in data["points"]] == [True, True, False, False]


def test_the_page_of_a_sweep_shows_curves_and_every_point():
    page = render_sweep(make_sweep())
    assert page.count("<svg") >= 4
    assert page.count("<tr>") == 1 + 4
    assert "Over the context delay" in page
    assert "Over the action delay" not in page, "one delay makes no curve"
    assert "12.5" in page
    assert "87.5" in page
    assert STEP_BACK_MEANS in page


def test_every_row_of_the_table_shows_success_seams_smoothness_and_delays():
    sweep = make_sweep()
    command, _, heads, rule, *rows = table(sweep).splitlines()
    assert command == "`python -m x`"
    assert len(rows) == 4
    cells = [dict(zip(split(heads), split(row), strict=True)) for row in rows]
    assert set(map(len, map(split, rows))) == {len(split(rule))}
    naive = cells[3]
    assert (naive["method"], naive["context [s]"], naive["action [s]"]) == ("`naive`", "0.3", "0.06")
    assert (naive["strict"], naive["95 %"], naive["p"]) == ("12 %", "2 to 47 %", "0.031")
    assert naive["jump at a seam, p99 [rad]"] == "0.200"
    assert (naive["no fresh chunk"], naive["seams that step back"]) == ("0.0 %", "0.0 %")
    assert all(naive[name] for name in ("change of velocity, p99 [rad/s]", "second difference, mean [mrad]"))
    assert all(naive[name] for name in ("SPARC, median", "delay, p95 [s]"))


def split(row):
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_page_of_a_report_shows_smoothness_stages_and_incidents(tmp_path):
    episode = record(
        0,
        "strict",
        **two_seams(smooth()),
        stages_ms={"dit_node: act": {"p50": 12.5}},
        incidents={"overrun: act": 3},
    )
    page = render_page(report(episode), tmp_path)
    for text in ("jump at a seam", "dit_node: act", "12.5", "overrun: act"):
        assert text in page
    assert "Incidents" not in render_page(report(record(0, "strict")), tmp_path)


def test_live_seams_are_measured_against_the_plan_that_did_not_know_the_chunk():
    first, second = chunk(1000), chunk(1200, 0.02 + 0.05)
    old, new = replace(chunk(900, -0.01), observation_ns=1000 * MS), replace(second, start_ns=1100 * MS)
    received = [Received(1060 * MS, first), Received(1260 * MS, second)]
    nothing, seam = live_seams(received, [old, new])
    assert np.isnan(nothing.position).all()
    np.testing.assert_allclose(seam.position, 0.07 + 0.1 * 0.06 - (-0.01 + 0.1 * 0.36), atol=1e-9)
    np.testing.assert_allclose(live_seams(received, [])[1].position, 0.05, atol=1e-9)
    assert live_seams([], []) == ()


def test_live_pauses_and_ages_follow_from_what_was_received():
    times_ns = np.arange(1000, 2000, 20) * MS
    received = [Received(1060 * MS, chunk(1000)), Received(1500 * MS, chunk(1440))]
    found = live_smoothness(received, [], times_ns, np.zeros((len(times_ns), len(NAMES))))
    assert np.isnan(found.unplanned[:3]).all()
    assert found.unplanned[3:20].max() == 0.0
    assert found.unplanned[20:25].min() == 1.0, "the first chunk ends at 1380 ms"
    assert found.chunk_ages_s[3] == pytest.approx(0.06)
    assert np.isnan(found.chunk_ages_s[22])


def test_the_time_a_live_run_waited_for_younger_contexts_is_in_its_events():
    chunks = [Received((at + 1300) * MS, chunk(at, observation_ms=at)) for at in (0, 1200, 2400, 3600)]
    events = [(0, "holding: activated"), (1300 * MS, "moving: chunk")]
    calm = live_context_wait(chunks, events, 5300 * MS)
    assert (calm.share, calm.needed_s, calm.advice()) == (0.0, pytest.approx(2.5), "")
    events += [(2300 * MS, "stopping: stale context: 2.320 s old (limit 2.3 s)"), (3300 * MS, "moving: chunk")]
    held = live_context_wait(chunks, events, 5300 * MS)
    assert (held.share, held.limit_s) == (pytest.approx(0.25), 2.3)
    assert "Held for 25.0 % of the time because the context was older than 2.3 s" in held.advice()


def test_stages_are_the_newest_that_were_told():
    def status(name, **values):
        entries = [SimpleNamespace(key=key.replace("__", " "), value=value) for key, value in values.items()]
        return SimpleNamespace(name=name, values=entries)

    told = [
        status("/dit_node", act__p50_ms="12.5", chunks="7"),
        status("/vlm_node", encode__p95_ms="90"),
        status("/dit_node", act__p50_ms="13.5", act__p95_ms="20"),
    ]
    assert stages_of(told) == {"dit_node: act": {"p50": 13.5, "p95": 20.0}, "vlm_node: encode": {"p95": 90.0}}
