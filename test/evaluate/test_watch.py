"""Replays for Foxglove and for Rerun: chunks, context age and interventions are in both."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from test_replay import SPEC, Oracle, write_bag

from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_file import BagFile
from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.evaluate.replay import SHADOW, run_replay
from dit_policy_ros.evaluate.watch_mcap import write_watch_bag
from dit_policy_ros.resources import share_directory


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    episode = open_episode(write_bag(tmp_path_factory.mktemp("bags") / "wave"), SPEC)
    chunks = []
    return episode, run_replay(episode, Oracle(offset=0.1, scale=1.9), SHADOW, on_chunk=chunks.append), chunks


def read(bag, topic):
    return [(log_ns, messages.deserialize(cdr, bag.topics[topic], topic)) for _, log_ns, cdr in bag.messages([topic])]


def test_the_bag_holds_what_was_recorded_and_what_was_made_of_it(replayed, tmp_path):
    episode, result, chunks = replayed
    assert len(chunks) == result.chunks > 5
    bag = BagFile(write_watch_bag(tmp_path / "watch", episode, result, chunks))
    for topic, count in episode.bag.counts.items():
        assert bag.counts[topic] == count
    found = read(bag, "/chunk")
    assert [log_ns for log_ns, _ in found] == [chunk.observation_ns for chunk in chunks]
    for (_, message), chunk in zip(found, chunks, strict=True):
        np.testing.assert_array_equal([point.positions for point in message.points], chunk.actions)
        assert f"observation_ns={chunk.observation_ns} context_ns={chunk.context_ns}" in message.header.frame_id
    texts = [message.data for _, message in read(bag, "/executor_node/status")]
    assert len(texts) == len(result.interventions)
    assert any(text.startswith("position limit: ") for text in texts)
    ages = [message.status[0].values[0] for _, message in read(bag, "/diagnostics")]
    assert {pair.key for pair in ages} == {"context age_s"}
    assert float(ages[-1].value) == pytest.approx(result.context_ages_s[-5:].mean(), abs=0.2)
    log_ns = [at for _, at, _ in bag.messages(bag.topics)]
    assert log_ns == sorted(log_ns)


def test_the_shipped_layout_shows_the_topics(replayed, tmp_path):
    episode, result, chunks = replayed
    bag = BagFile(write_watch_bag(tmp_path / "watch", episode, result, chunks))
    layout = (share_directory() / "config" / "foxglove" / "dit_policy.json").read_text()
    json.loads(layout)
    for topic in ("/chunk", "/executor_node/status", "/diagnostics", "/joint_states", "/top/image_raw/compressed"):
        assert re.search(rf'"{topic}[".]', layout)
        assert bag.counts[topic]


def test_the_rerun_recording_holds_them_too(replayed, tmp_path, monkeypatch):
    watch = pytest.importorskip("dit_policy_ros.evaluate.watch_rerun")
    monkeypatch.setenv("RERUN_ANALYTICS", "0")
    episode, result, chunks = replayed
    path = watch.write_rerun(tmp_path / "replay.rrd", episode, result, chunks)
    program = shutil.which("rerun")
    if program is None:
        pytest.skip("the rerun program is not on the path")
    printed = subprocess.run([program, "rrd", "print", str(path)], capture_output=True, text=True, check=True).stdout
    rows = {}
    for count, entity in re.findall(r"with (\d+) rows .*? - (/[\w/]+) - ", printed):
        rows[entity] = rows.get(entity, 0) + int(count)
    assert "/__warnings" not in rows
    assert rows["/chunks/left_waist"] == rows["/chunks/committed"] == len(chunks)
    assert rows["/interventions"] == len(result.interventions)
    assert rows["/context_age"] == int(np.isfinite(result.context_ages_s).sum())
    assert rows["/joints/right_gripper/measured"] == len(result.times_s)
    for camera in SPEC.cameras:
        assert rows[f"/cameras/{camera}"] == len(episode.image_stamps_ns(camera))
