import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.actions.smoothness import Seam
from dit_policy_ros.errors import ConfigError
from dit_policy_ros.evaluate.episode import EpisodeResult
from dit_policy_ros.evaluate.page import EMBEDDED_VIDEO_BYTES, render_page, write_page
from dit_policy_ros.evaluate.record import EpisodeRecord, from_result, worst_first
from dit_policy_ros.evaluate.report import Report, make_report, write_json
from dit_policy_ros.evaluate.smoothness import SEAM_JUMP_MEANS, smoothness_of
from dit_policy_ros.evaluate.statistics import wilson
from dit_policy_ros.evaluate.svg import Chart, ticks
from dit_policy_ros.runtime.context_watch import ContextWait
from dit_policy_ros.runtime.executor import ExecutorState, StateChange

NAMES = ("left_waist", "left_gripper")
STEPS, CHUNKS = 40, 6


def smoothness(rng, chunks: int = CHUNKS):
    seams = [
        Seam(0, 0, 0, np.abs(rng.normal(size=2)), np.ones(2), 1.0, 0.0, np.zeros(2), np.full(2, 0.1))
        for _ in range(chunks)
    ]
    return smoothness_of(seams, np.zeros((STEPS, 2)), 0.02, np.ones(STEPS, dtype=bool), np.full(STEPS, 0.1))


def record(seed: int, outcome: str = "strict", **changes) -> EpisodeRecord:
    rng = np.random.default_rng(seed)
    rewards = np.zeros(STEPS, dtype=np.int64)
    rewards[10:] = 2
    if outcome != "failure":
        rewards[20:] = 4
    if outcome == "sticky":
        rewards[30:] = 1
    commanded = rng.normal(size=(STEPS, 2))
    commanded[:3] = np.nan
    ages_s = np.full(STEPS, 0.4)
    ages_s[:3] = np.nan
    values = {
        "seed": seed,
        "world": "aloha_language",
        "instruction": f"lift cube {seed}",
        "sticky": outcome != "failure",
        "strict": outcome == "strict",
        "max_reward": 4,
        "joint_names": NAMES,
        "times_s": 0.02 * np.arange(STEPS),
        "rewards": rewards,
        "commanded": commanded,
        "measured": commanded + 0.01,
        "context_ages_s": ages_s,
        "splice_times_s": np.linspace(0.1, 0.7, CHUNKS),
        "events": ((0.0, "holding: activated"),),
        "refusals": {"stale": 1},
        "chunks": CHUNKS,
        "smoothness": smoothness(rng),
    }
    return EpisodeRecord(**(values | changes))


def report(*episodes: EpisodeRecord, **changes) -> Report:
    made = make_report(episodes, "models/demo", "ab" * 32, {"context": 0.3, "action": 0.06}, "python -m x evaluate")
    return replace(made, **changes)


MIXED = (record(3, "failure"), record(1), record(2, "sticky"), record(4))


def test_json_has_what_was_promised(tmp_path):
    data = json.loads(write_json(report(*MIXED), tmp_path).read_text())
    assert data["success_rate"] == 0.5
    assert data["sticky_rate"] == 0.75
    assert data["ci95"] == [wilson(2, 4).lower, wilson(2, 4).upper]
    assert data["sticky_ci95"] == [wilson(3, 4).lower, wilson(3, 4).upper]
    assert (data["episodes"], data["world"]) == (4, "aloha_language")
    assert data["delays_s"] == {"context": 0.3, "action": 0.06}
    assert data["command"] == "python -m x evaluate"
    assert data["versions"]["numpy"] == np.__version__
    assert [entry["seed"] for entry in data["per_episode"]] == [1, 2, 3, 4]
    third = data["per_episode"][2]
    assert (third["outcome"], third["sticky"], third["strict"], third["steps"]) == ("failure", False, False, STEPS)
    assert (third["best_reward"], third["final_reward"], third["reached_s"]) == (2, 2, None)
    assert data["per_episode"][1]["reached_s"] == pytest.approx(0.4)
    assert data["per_episode"][1]["final_reward"] == 1
    assert data["metrics"]["context_age_s"]["p50"] == pytest.approx(0.4)
    assert data["metrics"]["tracking_error"]["p100"] == pytest.approx(0.01)
    assert data["metrics"]["refusals"] == {"stale": 4}
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_two_runs_differ_only_in_their_date(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    first = write_json(report(*MIXED), tmp_path / "a").read_text()
    assert first == write_json(report(*reversed(MIXED)), tmp_path / "b").read_text()
    page = write_page(report(*MIXED), tmp_path / "a").read_text()
    assert page == write_page(report(*reversed(MIXED)), tmp_path / "b").read_text()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    second = write_json(report(*MIXED), tmp_path / "c").read_text()
    assert json.loads(first)["created"] == "1970-01-01T00:00:00+00:00"
    differing = [pair for pair in zip(first.splitlines(), second.splitlines(), strict=True) if pair[0] != pair[1]]
    assert [line.strip().split(":")[0] for line, _ in differing] == ['"created"']


class Outline(HTMLParser):
    """Checks that every element is closed in order, and gathers what the page would fetch."""

    VOID = ("meta", "path", "rect", "br")

    def __init__(self, page: str):
        super().__init__()
        self.open_tags, self.sources, self.anchors, self.ids = [], [], [], []
        self.feed(page)
        assert self.open_tags == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.sources += [attributes["src"]] if "src" in attributes else []
        self.anchors += [attributes["href"]] if "href" in attributes else []
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in self.VOID or (tag == "rect" and self.get_starttag_text()[-2] != "/"):
            self.open_tags.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in self.VOID

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag


def test_page_is_whole_and_needs_no_network(tmp_path):
    page = write_page(report(*MIXED), tmp_path).read_text()
    outline = Outline(page)
    assert outline.sources == []
    assert set(outline.anchors) == {f"#{name}" for name in outline.ids}
    assert not re.search(r"https?://|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    assert "50.0<small> %" in page
    assert "python -m x evaluate" in page
    assert page.count('class="cell') == 4
    seeds = [int(seed) for seed in re.findall(r'<article id="seed-(\d+)"', page)]
    assert seeds == [3, 2, 1, 4]
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S).lower()


def test_a_jump_at_a_seam_has_one_definition_wherever_it_is_shown(tmp_path):
    made = report(*MIXED)
    figures = made.to_dict()["metrics"]
    pooled = np.concatenate([episode.smoothness.seam_positions.ravel() for episode in MIXED])
    assert figures["smoothness"]["seam_position"]["p99"] == pytest.approx(np.percentile(pooled, 99), rel=0.05)
    assert not [name for name in figures if "seam" in name]
    page = render_page(made, tmp_path)
    p99, largest = (figures["smoothness"]["seam_position"][name] for name in ("p99", "p100"))
    assert f"<b>{p99:.3f} rad</b><span>jump at a seam, 99 % (largest: {largest:.3f} rad)</span>" in page
    row = re.search(r">jump at a seam \[rad\]</td><td[^>]*>([^<]*)<", page).group(1)
    assert f"99 % {p99:.3g}" in row
    assert f"largest {largest:.3g}" in row
    assert f"{max(episode.largest_seam for episode in MIXED):.3f}" == f"{largest:.3f}"
    assert page.count(SEAM_JUMP_MEANS) == 1
    assert "seam jump" not in page.lower()


def test_text_of_others_cannot_become_markup(tmp_path):
    page = render_page(report(record(1, instruction='<script>alert("x")</script>', events=((0.1, "<b>&"),))), tmp_path)
    assert "<script" not in page
    assert "&lt;b&gt;&amp;" in page


def test_small_videos_are_inside_and_large_ones_linked(tmp_path):
    (tmp_path / "small.mp4").write_bytes(b"small")
    (tmp_path / "large.mp4").write_bytes(bytes(EMBEDDED_VIDEO_BYTES + 1))
    episodes = [record(1, video="small.mp4"), record(2, video="large.mp4", bag="bags/2"), record(3, video="gone.mp4")]
    outline = Outline(render_page(report(*episodes), tmp_path))
    assert sorted(outline.sources) == ["data:video/mp4;base64,c21hbGw=", "large.mp4"]
    assert "bags/2" in outline.anchors


def test_latencies_are_shown_where_they_were_measured(tmp_path):
    live = record(1, latencies_s={"chunk": np.array([0.01, 0.03])})
    made = report(live, record(2))
    assert made.to_dict()["metrics"]["latency_s"]["chunk"]["p50"] == pytest.approx(0.02)
    assert "Latency: chunk" in render_page(made, tmp_path)
    assert "Latency" not in render_page(report(record(2)), tmp_path)


def test_a_success_stands_beside_the_failures(tmp_path):
    many = [record(seed, "failure") for seed in range(9)] + [record(seed) for seed in range(9, 12)]
    page = render_page(report(*many), tmp_path)
    assert re.findall(r'<article id="seed-(\d+)"', page)[-1] == "10"


def test_an_episode_in_which_nothing_happened_renders(tmp_path):
    nothing = record(
        1,
        "failure",
        rewards=np.zeros(STEPS, dtype=np.int64),
        commanded=np.full((STEPS, 2), np.nan),
        context_ages_s=np.full(STEPS, np.nan),
        splice_times_s=np.empty(0),
        smoothness=None,
        events=(),
    )
    made = report(nothing)
    json.dumps(made.to_dict(), allow_nan=False)
    Outline(render_page(made, tmp_path))


@given(outcomes=st.lists(st.sampled_from(["strict", "sticky", "failure"]), min_size=1, max_size=8), data=st.data())
def test_worst_first_does_not_depend_on_the_order(outcomes, data):
    episodes = [record(seed, outcome) for seed, outcome in enumerate(outcomes)]
    shuffled = data.draw(st.permutations(episodes))
    ordered = worst_first(tuple(shuffled))
    assert [episode.seed for episode in ordered] == [episode.seed for episode in worst_first(tuple(episodes))]
    ranks = [("failure", "sticky", "strict").index(episode.outcome) for episode in ordered]
    assert ranks == sorted(ranks)


def test_record_of_a_simulated_result():
    source = record(5, "sticky")
    start_ns = 7_000_000_000
    result = EpisodeResult(
        seed=5,
        world="aloha_insertion",
        instruction="join them",
        sticky=True,
        strict=False,
        rewards=source.rewards,
        times_s=source.times_s,
        commanded=source.commanded,
        measured=source.measured,
        context_ages_s=source.context_ages_s,
        splice_times_s=source.splice_times_s,
        changes=(
            StateChange(0, ExecutorState.UNCONFIGURED, ExecutorState.INACTIVE, "configured"),
            StateChange(start_ns + 500_000_000, ExecutorState.INACTIVE, ExecutorState.HOLDING, "activated"),
        ),
        refusals={"old": 2},
        starved={},
        position_hits=np.array([1, 2]),
        velocity_hits=np.array([0, 4]),
        encodes=3,
        chunks=8,
        incidents={"old epoch": 1},
        smoothness=source.smoothness,
        context_wait=ContextWait(0.25, 2.4, 2.0),
    )
    made = from_result(result, NAMES, start_ns, max_reward=4, video="a.mp4")
    assert made.outcome == "sticky"
    assert made.events == ((0.5, "holding: activated"),)
    assert (made.position_hits, made.velocity_hits, made.chunks, made.video) == (3, 4, 8, "a.mp4")
    assert report(made, record(6, world="aloha_insertion")).to_dict()["metrics"]["context_wait"] == {
        "held_share": 0.25,
        "needed_s": 2.4,
        "max_context_age_s": 2.0,
        "advice": made.context_wait.advice(),
    }
    assert made.largest_seam == np.nanmax(source.seam_positions) > 0.0


def test_bad_reports():
    with pytest.raises(ConfigError, match="at least one episode"):
        report()
    with pytest.raises(ConfigError, match="same seed"):
        report(record(1), record(1))
    with pytest.raises(ConfigError, match="of aloha_insertion, aloha_language"):
        report(record(1), record(2, world="aloha_insertion"))
    with pytest.raises(ConfigError, match=r"measured is \(40, 1\); it must be \(40, 2\)"):
        record(1, measured=np.zeros((STEPS, 1)))
    with pytest.raises(ConfigError, match=r"seam_positions is \(2, 2\); it must be \(6, 2\)"):
        record(1, smoothness=smoothness(np.random.default_rng(0), 2))


@given(low=st.floats(-1e4, 1e4), span=st.floats(1e-3, 1e4), count=st.integers(2, 10))
def test_ticks_are_round_and_inside(low, span, count):
    high = low + span
    values = ticks(low, high, count)
    assert 1 <= len(values) <= count + 1
    assert all(low - 1e-6 * span <= value <= high + 1e-6 * span for value in values)
    if len(values) > 1:
        steps = np.diff(values)
        np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
        assert f"{steps[0]:.0e}"[0] in "125"


def test_a_line_breaks_where_nothing_is_known():
    chart = Chart("a", (0.0, 3.0), (0.0, 1.0))
    chart.line(np.arange(4.0), np.array([0.0, np.nan, 0.5, 1.0]), "age")
    (path,) = re.findall(r'class="line age" d="([^"]*)"', chart.render())
    assert re.findall("[ML]", path) == ["M", "M", "L"]
