"""Several policies side by side, from the files that evaluate and replay write."""

import json

import numpy as np
import pytest

from dit_policy_ros.__main__ import main
from dit_policy_ros.errors import ConfigError
from dit_policy_ros.evaluate.comparison import compare, load_runs
from dit_policy_ros.evaluate.comparison_page import render_comparison
from dit_policy_ros.evaluate.paired import block_difference, holm, paired_difference

JOINTS = ("left_waist", "right_waist")


def success_report(folder, name, wins, world="aloha_transfer_cube", first_seed=1000):
    """What ``evaluate`` writes, as far as a comparison reads it."""
    episodes = [
        {"seed": first_seed + k, "strict": bool(won), "sticky": True, "outcome": "x"} for k, won in enumerate(wins)
    ]
    report = {
        "world": world,
        "policy": {"path": f"models/{name}", "sha256": name * 8},
        "per_episode": episodes,
        "command": f"python -m dit_policy_ros evaluate --policy {name}",
        "created": "2026-01-01",
    }
    return put(folder, report)


def error_report(folder, name, bag, errors, mode="open-loop"):
    """What ``replay`` writes."""
    report = {
        "mode": mode,
        "delays_s": {"context": 0.3, "action": 0.06},
        "robot": {"name": "aloha", "sha256": "r"},
        "policy": {"name": name, "sha256": name * 8},
        "bag": {"name": bag, "sha256": f"{bag}-hash"},
        "duration_s": 8.0,
        "error": {
            "overall": {"policy": float(np.mean(errors))},
            "per_joint": {joint: {"policy": float(np.mean(errors))} for joint in JOINTS},
            "per_chunk": [[0.2 * k, float(error), 1.0] for k, error in enumerate(errors)],
        },
        "command": f"python -m dit_policy_ros replay {bag} --policy {name}",
        "created": "2026-01-01",
    }
    return put(folder, report)


def put(folder, report):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_two_policies_on_common_seeds(tmp_path):
    a = success_report(tmp_path / "a", "a", [1] * 30 + [0] * 10)
    b = success_report(tmp_path / "b", "b", [1] * 10 + [0] * 40)
    result = compare(load_runs([a, b]), "command")
    (pair,) = result.pairs
    assert pair.seeds == tuple(range(1000, 1040))
    assert (pair.counts.both, pair.counts.only_first, pair.counts.only_second, pair.counts.neither) == (10, 20, 0, 10)
    assert pair.counts.p_value == pytest.approx(2 * 0.5**20)
    assert (pair.sequential.verdict, pair.p_holm) == ("first is better", pair.counts.p_value)
    # The ten first seeds are alike; then a few that are not are enough.
    assert 15 < pair.sequential.stopped_after < 22
    assert result.rates["b"][:2] == (10, 50)
    page = render_comparison(result)
    assert "a is better" in page
    assert page.count('class="cell') == 80
    assert "http" not in page.replace("http://www.w3.org", "")


def test_the_rule_goes_on_where_more_pairs_were_planned(tmp_path):
    folders = [success_report(tmp_path / name, name, [1, 0, 1]) for name in "ab"]
    assert compare(load_runs(folders), "c").pairs[0].sequential.verdict == "no difference shown"
    going_on = compare(load_runs(folders), "c", most_pairs=50)
    assert going_on.pairs[0].sequential.verdict == "continue"
    assert "go on; 3 pairs say too little yet" in render_comparison(going_on)
    assert compare(load_runs(folders), "c", outcome="sticky").rates["a"][:2] == (3, 3)


def test_three_policies_are_corrected_for_their_number(tmp_path):
    rng = np.random.default_rng(0)
    folders = [
        success_report(tmp_path / name, name, rng.random(40) < rate)
        for name, rate in zip("abc", (0.9, 0.4, 0.4), strict=True)
    ]
    pairs = compare(load_runs(folders), "c").pairs
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(pair.p_holm >= pair.counts.p_value for pair in pairs)
    assert [pair.p_holm for pair in pairs] == holm([pair.counts.p_value for pair in pairs])


def test_policies_of_one_name_are_told_apart_by_their_weights(tmp_path):
    a = success_report(tmp_path / "a", "same", [1, 0])
    b = success_report(tmp_path / "b", "same", [0, 1])
    report = json.loads((b / "report.json").read_text())
    report["policy"]["sha256"] = "other weights"
    put(b, report)
    assert [run.label for run in load_runs([a, b])] == ["same (samesame)", "same (other we)"]
    # Two reports of the same weights are one policy.
    more = success_report(tmp_path / "more", "same", [1, 1], first_seed=2000)
    runs = load_runs([a, more, b])
    assert len(runs) == 2
    assert compare(runs, "c").rates["same (samesame)"][:2] == (3, 4)


def test_replays_of_many_recordings(tmp_path):
    rng = np.random.default_rng(0)
    folders = []
    for bag in range(9):
        hard = rng.uniform(0.05, 0.5)
        for name, factor in (("good", 0.5), ("bad", 1.0)):
            folders.append(error_report(tmp_path / f"{name}{bag}", name, f"bag{bag}", np.full(20, hard * factor)))
    result = compare(load_runs(folders), "c")
    (pair,) = result.pairs
    assert (pair.unit, pair.difference.units) == ("recordings", 9)
    assert pair.difference.lower < pair.difference.mean < pair.difference.upper < 0
    assert pair.difference.p_value == pytest.approx(2 / 2**9)
    page = render_comparison(result)
    assert "good has the smaller error" in page
    assert all(joint in page for joint in JOINTS)
    assert len(result.errors["good"]) == 9


def test_a_single_recording_is_compared_in_blocks_of_time(tmp_path):
    rng = np.random.default_rng(0)
    base = rng.uniform(0.1, 0.2, size=40)
    a = error_report(tmp_path / "a", "a", "bag", base + 0.001 * rng.normal(size=40))
    b = error_report(tmp_path / "b", "b", "bag", base)
    (pair,) = compare(load_runs([a, b]), "c").pairs
    assert (pair.unit, pair.difference.units) == ("blocks of 2 s", 4)
    assert np.isnan(pair.difference.p_value)
    assert pair.difference.lower <= 0.0 <= pair.difference.upper
    assert "no difference shown" in render_comparison(compare(load_runs([a, b]), "c"))


def test_neighbours_that_are_alike_widen_the_interval():
    """Forty chunks of one slow error are not forty independent ones."""
    rng = np.random.default_rng(1)
    slow = np.repeat(rng.normal(size=8), 10)
    times_s = 0.2 * np.arange(80)
    blocks = block_difference(slow, np.zeros(80), times_s)
    alone = paired_difference(slow, np.zeros(80))
    assert blocks.mean == pytest.approx(alone.mean)
    assert blocks.upper - blocks.lower > 1.8 * (alone.upper - alone.lower)


def test_the_bootstrap_interval_covers_the_mean_about_as_often_as_stated():
    rng = np.random.default_rng(3)
    covered = 0
    for k in range(150):
        found = paired_difference(rng.normal(0.3, 1.0, size=40), np.zeros(40), seed=k)
        covered += found.lower <= 0.3 <= found.upper
    assert 0.88 < covered / 150 < 0.99


def test_holm_is_the_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = holm([0.04, float("nan"), 0.02])
    assert corrected[0] == pytest.approx(0.04)
    assert corrected[2] == pytest.approx(0.04)
    assert np.isnan(corrected[1])


def test_equal_reports_give_equal_comparisons_but_for_the_date(tmp_path, monkeypatch):
    for place in ("x", "y"):
        for name in "ab":
            success_report(tmp_path / place / name, name, [1, 0, 1])
    texts = []
    for place, day in (("x", "0"), ("y", "86400")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", day)
        folders = [str(tmp_path / place / name) for name in "ab"]
        assert main(["compare", *folders, "--report", str(tmp_path / place / "out")]) == 0
        texts.append((tmp_path / place / "out" / "comparison.json").read_text().splitlines())
    differing = [pair for pair in zip(*texts, strict=True) if pair[0] != pair[1]]
    assert [line.strip().split(":")[0] for line, _ in differing] == ['"created"']


def test_options_reach_the_file(tmp_path, capsys):
    folders = [str(success_report(tmp_path / name, name, [1, 0, 1])) for name in "ab"]
    options = ["--most-pairs", "70", "--alpha", "0.01", "--outcome", "sticky", "--report", str(tmp_path / "out")]
    assert main(["compare", *folders, *options]) == 0
    data = json.loads((tmp_path / "out" / "comparison.json").read_text())
    sequential = data["pairs"][0]["sequential"]
    assert (sequential["most_pairs"], sequential["alpha"], data["outcome"]) == (70, 0.01, "sticky")
    assert data["command"] == (
        "python -m dit_policy_ros compare a b --outcome sticky --alpha 0.01 --most-pairs 70 --report DIR"
    )
    assert "sequential: continue" in capsys.readouterr().out


def test_what_cannot_be_compared_is_named(tmp_path):
    a = success_report(tmp_path / "a", "a", [1, 0])
    other_world = success_report(tmp_path / "w", "b", [1, 0], world="aloha_insertion")
    other_seeds = success_report(tmp_path / "s", "b", [1, 0], first_seed=5000)
    replay = error_report(tmp_path / "r", "b", "bag", [0.1])
    shadow = error_report(tmp_path / "m", "c", "bag", [0.1], mode="shadow")
    other_bag = error_report(tmp_path / "o", "c", "other", [0.1])
    cases = [
        ([a, a], "at least two policies"),
        ([a, other_world], "several worlds"),
        ([a, other_seeds], "no seed in common"),
        ([a, replay], "cannot be compared; give those of one kind"),
        ([replay, shadow], "differ in mode, delays or robot description"),
        ([replay, other_bag], "no recording in common"),
    ]
    for folders, match in cases:
        with pytest.raises(ConfigError, match=match):
            compare(load_runs(folders), "c")
    with pytest.raises(ConfigError, match="cannot be read as a report"):
        load_runs([tmp_path])
    with pytest.raises(ConfigError, match="is no report of evaluate or replay"):
        load_runs([put(tmp_path / "n", {"policy": {}})])
