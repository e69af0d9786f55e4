"""``inspect`` and ``replay`` on a small bag, ``replay`` with a tiny untrained policy."""

import json
import shutil

import apsw
import numpy as np
import pytest
import torch
import yaml

from dit_policy_ros.__main__ import main
from dit_policy_ros.commands import bench_bags
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.policy.cameras import CameraView
from dit_policy_ros.policy.checkpoint import save_dual_policy
from dit_policy_ros.policy.dual_policy import DualPolicyConfig, Range
from dit_policy_ros.policy.dual_system import DualSystem, DualSystemConfig
from dit_policy_ros.resources import find_config
from dit_policy_ros.robot import load_robot
from dit_policy_ros.types import Observation, Trajectory

MS = 1_000_000
ROBOT = load_robot("aloha")
SIZES = {"top": (640, 480), "left_wrist": (320, 240), "right_wrist": (320, 240)}
HOME = np.array([0.0, -0.96, 1.16, 0.0, -0.3, 0.0, 0.5] * 2)


def targets_at(times_ns):
    t = (np.asarray(times_ns) * 1e-9)[:, None]
    return HOME + 0.05 * np.sin(2.0 * t + np.arange(14))


def write_bag(path, commands=True, cameras=tuple(SIZES)):
    images = {name: np.full((SIZES[name][1], SIZES[name][0], 3), 99, np.uint8) for name in cameras}
    with EpisodeWriter(path, ROBOT, EpisodeMetadata(instruction="wave")) as writer:
        for ms in range(1000, 2600, 20):
            joints = dict(zip(ROBOT.names, targets_at([ms * MS])[0].tolist(), strict=True))
            writer.observation(Observation(ms * MS, joints, {}, images if ms % 80 == 0 else {}))
            if commands and ms % 100 == 0:
                times_ns = ms * MS + 20 * MS * np.arange(20)
                for controller in ROBOT.controllers:
                    columns = [ROBOT.names.index(name) for name in controller.joints]
                    sent = Trajectory(controller.joints, times_ns, targets_at(times_ns)[:, columns])
                    writer.command(controller.name, ms * MS, sent)
    return path


def save_policy(directory, joint_names=ROBOT.names):
    sizes = DualSystemConfig(
        width=32, blocks=1, heads=2, slow_keypoints=4, fast_keypoints=4, text_width=16, condition=16
    )
    torch.manual_seed(0)
    views = {name: CameraView(name, size, (0.0, 0.0, 1.0, 1.0), (32, 24)) for name, size in SIZES.items()}
    config = DualPolicyConfig(
        joint_names,
        views["top"],
        (views["left_wrist"], views["right_wrist"]),
        Range(HOME - 2.0, HOME + 2.0),
        Range(HOME - 0.3, HOME + 0.3),
        sizes,
        solver_steps=1,
    )
    save_dual_policy(directory, config, DualSystem(sizes), {})
    return directory


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("bags") / "wave")


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_policy(tmp_path_factory.mktemp("models") / "tiny")


def replay(bag, policy, report, *more):
    return main(["replay", str(bag), "--policy", str(policy), "--robot", "aloha", "--report", str(report), *more])


@pytest.mark.parametrize("mode", ["open-loop", "shadow"])
def test_replays_in_two_places_differ_in_their_date_only(bag, policy, tmp_path, monkeypatch, mode, capsys):
    moved_bag = shutil.copytree(bag, tmp_path / "elsewhere" / bag.name)
    moved_policy = shutil.copytree(policy, tmp_path / "models" / policy.name)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert replay(bag, policy, tmp_path / "a", "--mode", mode) == 0
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert replay(moved_bag, moved_policy, tmp_path / "b", "--mode", mode) == 0
    one, other = ((tmp_path / name / "report.json").read_text().splitlines() for name in "ab")
    differing = [pair for pair in zip(one, other, strict=True) if pair[0] != pair[1]]
    assert [line.strip().split(":")[0] for line, _ in differing] == ['"created"']
    data = json.loads("\n".join(one))
    assert data["mode"] == mode
    assert (data["shadow"] is None) == (mode == "open-loop")
    files = {file.name for file in (tmp_path / "a").iterdir()}
    assert files == {"report.json", "index.html"} | ({"interventions.csv"} if mode == "shadow" else set())
    assert data["chunks"] > 2
    assert "Mean error over" in capsys.readouterr().out
    assert (tmp_path / "a" / "index.html").read_text().startswith("<!doctype html>")


def test_delays_reach_the_report(bag, policy, tmp_path):
    delays = ("--context-delay", "0.1", "--action-delay", "0.02")
    assert replay(bag, policy, tmp_path, *delays) == 0
    data = json.loads((tmp_path / "report.json").read_text())
    assert data["delays_s"] == {"context": 0.1, "action": 0.02}
    assert "--context-delay 0.1 --action-delay 0.02" in data["command"]


def test_several_policies_are_compared(bag, policy, tmp_path, capsys):
    other = shutil.copytree(policy, tmp_path / "other")
    (other / "model.safetensors").write_bytes(perturbed(other / "model.safetensors"))
    command = ["replay", str(bag), "--policy", str(policy), str(other), "--robot", "aloha", "--report"]
    assert main([*command, str(tmp_path / "out")]) == 0
    assert "Comparison: " in capsys.readouterr().out
    for name in ("tiny", "other"):
        assert json.loads((tmp_path / "out" / name / "report.json").read_text())["policy"]["name"] == name
    data = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (data["kind"], set(data["errors"])) == ("error", {"tiny", "other"})
    assert data["pairs"][0]["difference"]["mean"] != 0.0
    namesake = shutil.copytree(policy, tmp_path / "again" / "tiny")
    command[3:5] = [str(policy), str(namesake)]
    assert main([*command, str(tmp_path / "out2")]) == 2
    assert "would share a folder" in one_line(capsys)


def perturbed(file):
    """The weights, each moved a little."""
    from safetensors.numpy import load_file, save

    return save({name: np.asarray(values + np.float32(0.02)) for name, values in load_file(file).items()})


def test_replay_without_such_a_device_is_one_line(bag, policy, tmp_path, capsys):
    assert replay(bag, policy, tmp_path, "--device", "cuda:7") == 2
    error = capsys.readouterr().err.strip()
    assert "'cuda:7' is not here. This machine has: cpu" in error
    assert "\n" not in error


def test_a_replay_can_be_watched(bag, policy, tmp_path, capsys):
    assert replay(bag, policy, tmp_path, "--mcap") == 0
    assert f"Foxglove: {tmp_path / 'watch'}" in capsys.readouterr().out
    assert (tmp_path / "watch" / "metadata.yaml").exists()
    pytest.importorskip("rerun")
    assert replay(bag, policy, tmp_path / "second", "--rerun") == 0
    assert (tmp_path / "second" / "replay.rrd").stat().st_size > 1000
    assert not (tmp_path / "second" / "watch").exists()


def test_one_episode_of_a_longer_bag(bag, policy, tmp_path, capsys):
    two = shutil.copytree(bag, tmp_path / "two")
    spans = [[1000 * MS, 1700 * MS], [1700 * MS, 2600 * MS]]
    text = (two / "metadata.yaml").read_text()
    entry = f"dit_policy_ros.episodes: '{json.dumps(spans)}'"
    (two / "metadata.yaml").write_text(text.replace("dit_policy_ros.robot:", f"{entry}\n    dit_policy_ros.robot:"))
    assert replay(two, policy, tmp_path / "all") == 2
    assert "holds 2 episodes; choose one by its number" in one_line(capsys)
    assert replay(two, policy, tmp_path / "second", "--episode", "1") == 0
    data = json.loads((tmp_path / "second" / "report.json").read_text())
    assert data["bag"]["episode"] == 1
    assert "replay two --episode 1 --policy" in data["command"]
    assert data["duration_s"] == pytest.approx(0.88)


def one_line(capsys):
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    return error


def test_what_cannot_be_replayed_is_one_line(bag, policy, tmp_path, capsys):
    silent = write_bag(tmp_path / "silent", commands=False)
    assert replay(silent, policy, tmp_path / "r") == 2
    assert "has no command for left_arm_controller" in one_line(capsys)
    blind = write_bag(tmp_path / "blind", cameras=("top",))
    assert replay(blind, policy, tmp_path / "r") == 2
    assert "images of camera left_wrist" in one_line(capsys)
    foreign = save_policy(tmp_path / "foreign", tuple(f"leg_{k}" for k in range(14)))
    assert replay(bag, foreign, tmp_path / "r") == 2
    assert "leg_0" in one_line(capsys)
    assert replay(bag, policy, tmp_path / "r", "--action-delay", "-1") == 2
    assert "cannot be negative" in one_line(capsys)
    assert replay(tmp_path / "nothing", policy, tmp_path / "r") == 2
    assert "There is no bag" in one_line(capsys)
    assert not (tmp_path / "r").exists()


def test_inspect_holds_a_bag_against_a_robot(bag, tmp_path, capsys):
    assert main(["inspect", str(bag), "--robot", "aloha", "--report", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "/joint_states" in printed
    assert "error:" not in printed
    page = (tmp_path / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3 * 8
    assert all(name in page for name in ROBOT.names)
    data = json.loads((tmp_path / "inspection.json").read_text())
    assert data["streams"]["/joint_states"]["count"] == 80
    assert not (tmp_path / "robot.yaml").exists()


def test_a_bag_that_does_not_fit_fails_and_says_why(tmp_path, capsys):
    silent = write_bag(tmp_path / "silent", commands=False)
    assert main(["inspect", str(silent), "--robot", "aloha"]) == 1
    assert "error: /left_arm_controller/joint_trajectory: is missing" in capsys.readouterr().out


def test_inspect_without_a_robot_proposes_one(bag, tmp_path, capsys):
    assert main(["inspect", str(bag), "--report", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    # What is printed can go into a file as it is.
    assert yaml.safe_load(printed.out)["cameras"].keys() == ROBOT.cameras.keys()
    assert (tmp_path / "robot.yaml").read_text() == printed.out
    assert "/joint_states" in printed.err
    assert "Proposed robot description" in (tmp_path / "index.html").read_text()


def test_a_joint_beyond_its_limits_is_red_on_the_page(bag, tmp_path):
    tight = find_config("robots", "aloha").read_text().replace("[-1.76278, 1.6057]", "[-1.76278, 1.18]")
    (tmp_path / "tight.yaml").write_text(tight)
    assert main(["inspect", str(bag), "--robot", str(tmp_path / "tight.yaml"), "--report", str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text()
    assert "left_elbow is in" in page
    assert 'class="fill-over"' in page


def test_inspecting_nothing_is_one_line(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "nothing"), "--robot", "aloha"]) == 2
    assert "There is no bag" in one_line(capsys)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_bench_bags_reads_the_bag_in_another_storage(bag, capsys, monkeypatch, storage):
    opened = []
    copy = bench_bags._copy

    def copied(source, path, name):
        opened.extend(file.suffix for file in copy(source, path, name).iterdir())
        return path

    monkeypatch.setattr(bench_bags, "_copy", copied)
    monkeypatch.setattr(bench_bags, "_SPEED_S", 0.0)
    assert main(["bench", "bags", "--bag", str(bag), "--robot", "aloha", "--storage", storage]) == 0
    data = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert sorted(opened) == [{"sqlite3": ".db3", "mcap": ".mcap"}[storage], ".yaml"]
    assert all(entry["share"] > 0 for entry in data["speed"].values())
    assert data["speed"]["top"]["images"] == 20


def test_a_bag_with_a_damaged_page_is_replayed_and_the_loss_told(bag, policy, tmp_path, capsys):
    damaged = bench_bags._copy(bag, tmp_path / "damaged", "sqlite3")
    file = damaged / "damaged.db3"
    connection = apsw.Connection(str(file))
    row = connection.execute("SELECT id FROM messages WHERE timestamp = 1800000000 AND length(data) < 999").fetchone()[
        0
    ]
    connection.execute("UPDATE messages SET data = 7 WHERE id = ?", (row,))
    connection.close()
    assert main(["inspect", str(damaged), "--robot", "aloha"]) == 1
    told = f"damaged.db3 is damaged, row {row} cannot be read (0.80 s to 0.80 s: 1 of "
    assert told in capsys.readouterr().out
    replay(damaged, policy, tmp_path / "out", "--mode", "shadow")
    assert told in capsys.readouterr().out
    assert told in json.loads((tmp_path / "out" / "report.json").read_text())["bag"]["lost"]
    assert told in (tmp_path / "out" / "index.html").read_text()
    assert (
        main(["train", "--data", str(damaged), "--robot", "aloha", "--out", str(tmp_path / "t"), "--steps", "1"]) == 2
    )
    assert "inspect and replay use what is whole" in capsys.readouterr().err


def test_bench_bags_measures_speed_and_memory(bag, capsys):
    assert main(["bench", "bags", "--bag", str(bag), "--robot", "aloha", "--minutes", "0.05", "0.1"]) == 0
    data = json.loads(capsys.readouterr().out.splitlines()[-1])
    together = data["speed"].pop("side by side")
    assert (together["images"], together["share"] > 0) == (60, True)
    assert set(data["speed"]) == set(ROBOT.cameras)
    assert all(entry["images"] == 20 and entry["share"] > 0 for entry in data["speed"].values())
    assert set(data["peak_memory_mb"]) == {"0.05 min", "0.1 min"}
    for peaks in data["peak_memory_mb"].values():
        assert set(peaks) == {"reading", "inspect", "replay"}
        assert all(10.0 < peak < 2000.0 for peak in peaks.values())
    assert main(["bench", "bags"]) == 2
    assert "give --bag for the speed of reading" in one_line(capsys)
