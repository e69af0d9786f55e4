"""The whole graph through the command line: processes, DDS, recorder, videos, page."""

import json

import numpy as np
import pytest
from harness import DOMAIN
from tiny_policy import TARGET, save_tiny_policy

from dit_policy_ros.__main__ import main
from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.evaluate.recorded import from_bag
from dit_policy_ros.robot import load_robot
from dit_policy_ros.sim.body import AlohaBody
from dit_policy_ros.sim.record import record_episode

SEED = 100_000


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Output folder of a demo of one episode with a tiny policy."""
    out = tmp_path_factory.mktemp("demo")
    policy = save_tiny_policy(out / "policy")
    arguments = ["demo", "--policy", str(policy), "--episodes", "1", "--seed", str(SEED), "--phrases", "train"]
    assert main([*arguments, "--out", str(out / "output"), "--domain", str(DOMAIN)]) == 0
    return out / "output"


@pytest.mark.slow
def test_demo_leaves_a_page_a_video_and_a_bag(demo):
    report = json.loads((demo / "report.json").read_text())
    assert report["episodes"] == 1
    assert report["per_episode"][0]["seed"] == SEED
    page = (demo / "index.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert next((demo / "videos").glob("*.mp4")).stat().st_size > 10_000
    assert len(list((demo / "bags").iterdir())) == 1


@pytest.mark.slow
def test_live_and_recorded_bags_have_the_same_structure(demo, tmp_path):
    robot = load_robot("aloha")
    body = AlohaBody("aloha_language", robot)
    record_episode(body, SEED, tmp_path / "recorded", disturb=False)
    body.close()
    live_path = next((demo / "bags").iterdir())
    live, recorded = BagFile(live_path), BagFile(tmp_path / "recorded")
    for topic, kind in recorded.topics.items():
        assert live.topics[topic] == kind, topic
    extra = set(live.topics) - set(recorded.topics)
    assert extra <= {
        "/chunk", "/context", "/executor_node/plan", "/executor_node/status", "/sim_node/episode", "/diagnostics",
        "/executor_node/preview", "/executor_node/interventions", "/e_stop", "/enable",
    }  # fmt: skip
    first, second = open_episode(live_path, robot), open_episode(tmp_path / "recorded", robot)
    assert first.instruction == second.instruction
    assert (first.metadata.world, first.metadata.seed) == (second.metadata.world, second.metadata.seed)
    assert np.median(np.diff(first.joints.times_ns)) == np.median(np.diff(second.joints.times_ns))
    for camera in robot.cameras:
        assert next(first.frames(camera))[1].shape == next(second.frames(camera))[1].shape


@pytest.mark.slow
def test_a_live_bag_shows_what_moved_the_arms(demo):
    robot = load_robot("aloha")
    record = from_bag(open_episode(next((demo / "bags").iterdir()), robot))
    assert record.chunks > 10
    assert record.encodes > 5
    assert np.nanmedian(record.context_ages_s) < 2.0
    np.testing.assert_allclose(record.measured[-1, :6], TARGET[:6], atol=0.05)
    np.testing.assert_allclose(record.commanded[-1], TARGET, atol=0.01)
    assert (record.latencies_s["observation to chunk"] >= 0.0).all()
    assert len(record.seam_positions) == record.chunks == len(record.splice_times_s)
    assert np.nanmax(record.seam_positions[5:]) < 0.05
    assert np.nanmean(record.smoothness.unplanned) < 0.5
    stages = {stage.partition(": ")[2] for stage in record.stages_ms}
    assert {"receive", "decode", "synchronise", "encode", "act", "publish", "context transfer"} <= stages


@pytest.mark.slow
def test_demo_refuses_to_overwrite_an_earlier_one(demo, capsys):
    policy = demo.parent / "policy"
    assert main(["demo", "--policy", str(policy), "--out", str(demo)]) == 2
    assert "choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--world", "aloha_pour_tea"], "aloha_insertion"),
        (["--phrases", "rude"], "held_out"),
        (["--episodes", "0"], "at least 1"),
        (["--policy", "nowhere"], "No policy at 'nowhere'"),
        (["--robot", "r2d2"], "aloha"),
    ],
)
def test_bad_arguments_are_one_line_errors(arguments, says, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "x"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error
    assert not (tmp_path / "x").exists()
