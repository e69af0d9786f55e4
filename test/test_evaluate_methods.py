"""Comparisons and sweeps of ``evaluate``, on a tiny untrained network."""

import json

import pytest
from test_commands_on_a_policy import policy as tiny_policy

from dit_policy_ros.__main__ import main
from dit_policy_ros.commands import episodes
from dit_policy_ros.evaluate import sweep
from dit_policy_ros.sim import worlds

policy = tiny_policy


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Episodes of half a second, in this process."""
    real = worlds.find_world

    def find(name):
        world = real(name)
        object.__setattr__(world, "episode_steps", 25)
        return world

    length = {name: world.episode_steps for name, world in worlds.WORLDS.items()}
    monkeypatch.setattr("dit_policy_ros.sim.body.find_world", find)
    yield
    for name, steps in length.items():
        object.__setattr__(worlds.WORLDS[name], "episode_steps", steps)


def evaluate(policy, report, *options, ends=0):
    arguments = ["evaluate", "--policy", str(policy), "--world", "aloha_transfer_cube", "--episodes", "1"]
    arguments += ["--context-delay", "0.1"]
    assert main([*arguments, "--workers", "1", "--report", str(report), *options]) == ends
    return json.loads((report / "report.json").read_text())


def test_every_method_runs_in_closed_loop_and_is_compared(policy, tmp_path):
    data = evaluate(policy, tmp_path, "--method", "all", "--horizon", "0.2")
    methods = [point["method"] for point in data["points"]]
    assert methods[0] == "prefix"
    assert {"naive", "synchronous", "real_time", "best_of", "roll_forward"} < set(methods)
    assert "streaming" not in methods
    for point in data["points"]:
        assert point["metrics"]["seam_position"] or point["method"] == "synchronous"
    page = (tmp_path / "index.html").read_text()
    assert all(name in page for name in methods)


def test_one_method_gives_the_ordinary_report(policy, tmp_path):
    data = evaluate(policy, tmp_path, "--method", "naive")
    assert data["method"] == "naive"
    assert data["metrics"]["smoothness"]["seam_position"]
    assert "naive" in (tmp_path / "index.html").read_text()


def test_a_sweep_covers_both_delays_and_goes_on_where_it_was(policy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "CONTEXT_DELAYS_S", (0.0, 0.2))
    monkeypatch.setattr(sweep, "ACTION_DELAYS_S", (0.06, 0.1))
    data = evaluate(policy, tmp_path, "--sweep", "--method", "splice,naive")
    delays = [(p["method"], p["context_delay_s"], p["action_delay_s"]) for p in data["points"]]
    each = [(0.0, 0.06), (0.2, 0.06), (0.1, 0.06), (0.1, 0.1)]
    assert delays == [(method, *pair) for method in ("splice", "naive") for pair in each]
    assert "<svg" in (tmp_path / "index.html").read_text()
    files = sorted((tmp_path / "points").glob("*.json"))
    assert len(files) == 8
    for file in files[:3]:
        file.unlink()
    capsys.readouterr()
    again = evaluate(policy, tmp_path, "--sweep", "--method", "splice,naive")
    told = capsys.readouterr().out
    assert "5 of 8 points are finished" in told
    assert told.count("naive, context") == 3
    assert again["points"] == data["points"]


def test_an_interrupted_sweep_loses_one_point_at_most_and_measures_none_twice(policy, tmp_path, monkeypatch, capsys):
    options = ("--method", "splice,naive", "--episodes", "2")
    whole = evaluate(policy, tmp_path / "whole", *options)
    real, ran = episodes._job, []

    def counting(job):
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(job)
        return real(job)

    monkeypatch.setattr(episodes, "_job", counting)
    assert evaluate(policy, tmp_path / "cut", *options, ends=130)["points"] == whole["points"][:1]
    monkeypatch.setattr(episodes, "_job", lambda job: (ran.append(job), real(job))[1])
    again = evaluate(policy, tmp_path / "cut", *options)
    assert "1 of 2 points are finished" in capsys.readouterr().out
    assert len(ran) == 3 + 2, "of four, one episode was measured twice: that of the point that was cut"
    assert again["points"] == whole["points"]
    (tmp_path / "cut" / "index.html").unlink()
    evaluate(policy, tmp_path / "cut", *options)
    assert len(ran) == 5
    assert "naive" in (tmp_path / "cut" / "index.html").read_text(), "drawn from finished points alone"


def test_more_methods_later_keep_the_points_and_another_seed_does_not(policy, tmp_path, capsys):
    first = evaluate(policy, tmp_path, "--method", "splice,naive")
    more = evaluate(policy, tmp_path, "--method", "splice,naive,best_of")
    assert "2 of 3 points are finished" in capsys.readouterr().out
    assert [point["strict"] for point in more["points"][:2]] == [point["strict"] for point in first["points"]]
    evaluate(policy, tmp_path, "--method", "splice,naive", "--seed", "7")
    told = capsys.readouterr().out
    assert "0 of 2 points are finished" in told
    assert "2 of other code, weights, seeds or options lie there too" in told
    for file in (tmp_path / "points").glob("naive-*.json"):
        file.write_text("{}")
    arguments = ["evaluate", "--policy", str(policy), "--world", "aloha_transfer_cube", "--episodes", "1"]
    arguments += ["--context-delay", "0.1", "--report", str(tmp_path), "--method", "splice,naive"]
    assert main(arguments) == 2
    assert "delete it to measure it anew" in capsys.readouterr().err


@pytest.mark.parametrize("axis", ["context", "action"])
def test_a_sweep_of_one_delay_leaves_the_other(policy, tmp_path, monkeypatch, axis):
    monkeypatch.setattr(sweep, "CONTEXT_DELAYS_S", (0.0, 0.2))
    monkeypatch.setattr(sweep, "ACTION_DELAYS_S", (0.06, 0.1))
    data = evaluate(policy, tmp_path, "--sweep", axis)
    delays = {(point["context_delay_s"], point["action_delay_s"]) for point in data["points"]}
    assert delays == {"context": {(0.0, 0.06), (0.2, 0.06)}, "action": {(0.1, 0.06), (0.1, 0.1)}}[axis]
    assert f"--sweep {axis}" in data["command"]
    rows = (tmp_path / "table.md").read_text().splitlines()
    assert rows[0] == f"`{data['command']}`"
    assert len(rows) == 4 + len(delays)
    assert len({row.count("|") for row in rows[2:]}) == 1
    assert rows[4].startswith("| `own` | 0")


def test_the_limit_on_the_age_of_contexts_is_an_option(policy, tmp_path, capsys):
    waits = evaluate(policy, tmp_path / "a", "--max-context-age", "0.15")["metrics"]["context_wait"]
    assert waits["max_context_age_s"] == 0.15
    assert waits["held_share"] > 0.0
    assert waits["advice"] in capsys.readouterr().out
    assert waits["advice"] in (tmp_path / "a" / "index.html").read_text()
    waits = evaluate(policy, tmp_path / "b")["metrics"]["context_wait"]
    assert (waits["max_context_age_s"], waits["held_share"], waits["advice"]) == (2.0, 0.0, "")
    assert "Held for" not in capsys.readouterr().out + (tmp_path / "b" / "index.html").read_text()


@pytest.mark.parametrize("pattern", ["jitter", "spikes", "stall"])
def test_delays_vary_by_a_pattern(policy, tmp_path, pattern):
    data = evaluate(policy, tmp_path, "--delays", pattern, "--action-delay", "0.1")
    assert data["delay_pattern"] == pattern
    assert f"--delays {pattern}" in data["command"]


def test_delays_come_from_a_trace(policy, tmp_path):
    trace = tmp_path / "trace.json"
    trace.write_text(json.dumps({"context": [0.1], "action": [0.14]}))
    data = evaluate(policy, tmp_path / "out", "--delays", f"trace:{trace}", "--method", "splice")
    consumed = data["metrics"]["smoothness"]["delay_consumed_s"]
    assert consumed["p50"] == pytest.approx(0.14)


def test_horizon_and_encode_period_reach_the_schedule(policy, tmp_path):
    ordinary = evaluate(policy, tmp_path / "a")["per_episode"][0]
    other = evaluate(policy, tmp_path / "b", "--horizon", "0.2", "--encode-period", "1.0")["per_episode"][0]
    assert other["chunks"] > ordinary["chunks"]
    assert other["encodes"] < ordinary["encodes"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--method", "smooth"], "temporal_ensemble"),
        (["--method", "naive,streaming"], "noise level per action"),
        (["--delays", "sometimes"], "spikes"),
        (["--delays", "trace:nowhere"], "demo bag or a JSON file"),
        (["--action-delay", "-1"], "not negative"),
        (["--horizon", "inf"], "finite"),
        (["--device", "cuda:9"], "This machine has: cpu"),
        (["--max-context-age", "0"], "above zero"),
    ],
)
def test_bad_options_are_one_line(policy, options, says, tmp_path, capsys):
    arguments = ["evaluate", "--policy", str(policy), "--world", "aloha_transfer_cube", "--report", str(tmp_path)]
    assert main([*arguments, *options]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error


def test_a_trace_needs_both_systems(policy, tmp_path, capsys):
    trace = tmp_path / "trace.json"
    trace.write_text(json.dumps({"context": [0.2]}))
    arguments = ["evaluate", "--policy", str(policy), "--world", "aloha_transfer_cube", "--report", str(tmp_path)]
    assert main([*arguments, "--delays", f"trace:{trace}"]) == 2
    assert "'action'" in capsys.readouterr().err
