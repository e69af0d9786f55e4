"""``evaluate`` and ``bench`` on a real policy directory with a tiny untrained network."""

import json

import numpy as np
import pytest
import torch

from dit_policy_ros.__main__ import main
from dit_policy_ros.policy import checkpoint
from dit_policy_ros.policy.cameras import CameraView
from dit_policy_ros.policy.checkpoint import save_dual_policy
from dit_policy_ros.policy.device import HOST
from dit_policy_ros.policy.dual_policy import DualPolicy, DualPolicyConfig, Range
from dit_policy_ros.policy.dual_system import DualSystem, DualSystemConfig
from dit_policy_ros.sim.body import IMAGE_SIZES, JOINT_NAMES


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    sizes = DualSystemConfig(
        width=32, blocks=1, heads=2, slow_keypoints=4, fast_keypoints=4, text_width=16, condition=16
    )
    torch.manual_seed(0)
    home = np.array([0.0, -0.96, 1.16, 0.0, -0.3, 0.0, 0.5] * 2)
    views = {name: CameraView(name, size, (0.0, 0.0, 1.0, 1.0), (32, 24)) for name, size in IMAGE_SIZES.items()}
    config = DualPolicyConfig(
        JOINT_NAMES,
        views["top"],
        (views["left_wrist"], views["right_wrist"]),
        Range(home - 2.0, home + 2.0),
        Range(home - 0.3, home + 0.3),
        sizes,
        solver_steps=1,
        mirrored=False,  # an untrained network's mirrored noises cancel, and nothing would move
    )
    directory = tmp_path_factory.mktemp("models") / "tiny"
    save_dual_policy(directory, config, DualSystem(sizes), {})
    return directory


def evaluate(policy, report, workers):
    arguments = ["evaluate", "--policy", str(policy), "--world", "aloha_transfer_cube", "--episodes", "2"]
    assert main([*arguments, "--seed", "7", "--report", str(report), "--workers", str(workers)]) == 0
    data = json.loads((report / "report.json").read_text())
    assert data.pop("created")
    assert str(report) in data.pop("command")
    return data


def test_evaluation_is_the_same_for_any_number_of_workers(policy, tmp_path):
    alone = evaluate(policy, tmp_path / "one", 1)
    assert alone["episodes"] == 2
    assert [episode["seed"] for episode in alone["per_episode"]] == [7, 8]
    assert alone["success_rate"] == 0.0
    assert alone["delays_s"] == {"context": 0.3, "action": 0.06}
    assert (tmp_path / "one" / "index.html").exists()
    assert evaluate(policy, tmp_path / "two", 2) == alone


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["--world", "aloha_pour_tea"], "aloha_insertion"),
        (["--policy", "nowhere"], "python -m dit_policy_ros train"),
        (["--phrases", "rude"], "held_out, plain, train"),
        (["--robot", "r2d2"], "Give a path to a YAML file"),
        (["--episodes", "0"], "at least 1"),
    ],
)
def test_bad_options_of_evaluate_are_one_line(policy, changes, says, tmp_path, capsys):
    arguments = ["evaluate", "--policy", str(policy), "--world", "aloha_transfer_cube", "--report", str(tmp_path)]
    assert main([*arguments, *changes]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error


def test_bench_ends_in_a_line_of_json(policy, capsys):
    assert main(["bench", "--policy", str(policy), "--runs", "3"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["runs"] == 3
    assert set(last["latency"]) == {"encode", "act", "act with a committed prefix"}
    assert all(value > 0 for entry in last["latency"].values() for value in entry.values())


def test_the_device_is_where_the_policy_is_loaded(policy, monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(checkpoint, "find_device", lambda name: asked.append(name) or HOST)
    monkeypatch.setattr("dit_policy_ros.policy.device.find_device", lambda name: asked.append(name) or HOST)
    monkeypatch.setattr("dit_policy_ros.commands.episodes._policies", {})
    assert main(["bench", "--policy", str(policy), "--runs", "1", "--device", "cuda:1"]) == 0
    assert asked == ["cuda:1"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["device"] == "cuda:1"
    arguments = ["evaluate", "--policy", str(policy), "--world", "aloha_transfer_cube", "--report", str(tmp_path)]
    assert main([*arguments, "--episodes", "1", "--workers", "1", "--device", "cuda"]) == 0
    assert set(asked[1:]) == {"cuda"}
    assert "--device cuda" in json.loads((tmp_path / "report.json").read_text())["command"]


def test_bench_without_such_a_device_is_one_line(policy, capsys):
    assert main(["bench", "--policy", str(policy), "--device", "cuda:7"]) == 2
    error = capsys.readouterr().err.strip()
    assert "'cuda:7' is not here. This machine has: cpu" in error
    assert "\n" not in error


def test_bench_asks_what_is_given(policy, monkeypatch):
    asked = []
    real = DualPolicy.encode

    def encode(self, observation, instruction, epoch=0):
        asked.append(instruction)
        return real(self, observation, instruction, epoch)

    monkeypatch.setattr(DualPolicy, "encode", encode)
    assert main(["bench", "--policy", str(policy), "--runs", "1", "--instruction", "wave"]) == 0
    assert set(asked) == {"wave"}


def test_bench_wants_at_least_one_run(policy, capsys):
    assert main(["bench", "--policy", str(policy), "--runs", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
