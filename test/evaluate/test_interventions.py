"""What the executor would have prevented: kept in order, counted, on the timeline and in the table."""

from dataclasses import replace

import numpy as np
import pytest
from test_replay import ORIGIN, SPEC, Oracle, write_bag

from dit_policy_ros.data import scratch
from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.errors import PolicyError
from dit_policy_ros.evaluate.chunk_log import ChunkLog
from dit_policy_ros.evaluate.interventions import KINDS, Intervention, InterventionLog
from dit_policy_ros.evaluate.replay import LIMITS, SHADOW, run_replay
from dit_policy_ros.evaluate.replay_page import render_replay
from dit_policy_ros.evaluate.replay_plots import intervention_timeline
from dit_policy_ros.evaluate.replay_report import make_replay_report, write_interventions


@pytest.fixture(scope="module")
def episode(tmp_path_factory):
    return open_episode(write_bag(tmp_path_factory.mktemp("bags") / "wave"), SPEC)


class Moody(Oracle):
    """Fails at every third chunk but the first."""

    calls = 0

    def act(self, observation, context, committed=None):
        self.calls += 1
        if self.calls % 3 == 0:
            raise PolicyError("the third is one too many")
        return super().act(observation, context, committed)


def test_what_went_in_comes_out(monkeypatch):
    monkeypatch.setattr(scratch, "_BLOCK_BYTES", 64)
    log, known = InterventionLog(), []
    for k in range(200):
        entry = Intervention(0.02 * k, KINDS[k % len(KINDS)], f"Gelenk {k} \u00fcber {'x' * (k % 7)}")
        log.append(entry.time_s, entry.kind, entry.text)
        known.append(entry)
    assert list(log) == known
    assert log[-1] == known[-1]
    assert log[3:9] == tuple(known[3:9])
    assert log.counts["state"] == sum(entry.kind == "state" for entry in known)
    np.testing.assert_array_equal(log.times_s("state"), [entry.time_s for entry in known if entry.kind == "state"])
    with pytest.raises(IndexError, match="There are 200"):
        log[200]


def test_marks_that_would_lie_on_each_other_are_one_that_tells_their_number():
    log = InterventionLog()
    for k in range(10_000):
        log.append(0.36 * k, "refused", "late")
    picture = intervention_timeline(log, 3600.0)
    assert "refused: 10000" in picture
    assert picture.count("<title>refused, ") <= 451
    assert "more up to here" in picture


def test_every_limit_is_counted_by_joint_and_written_down(episode, tmp_path):
    spec = replace(SPEC, joints=tuple(replace(joint, acceleration=1.0) for joint in SPEC.joints))
    result = run_replay(replace(episode, robot=spec), Oracle(offset=0.1, scale=1.9), SHADOW)
    assert set(result.hits) == set(LIMITS)
    for kind in ("position limit", "acceleration limit"):
        assert result.hits[kind].sum() > 0
        assert result.interventions.counts[kind] > 0
    report = make_replay_report(ORIGIN, result)
    limited = report.to_dict()["shadow"]["limited"]["position limit"]
    assert list(limited.values()) == result.hits["position limit"].tolist()
    assert limited["left_gripper"] > 0
    page = render_replay(report, {})
    assert '<th class="number">jerk limit</th>' in page
    assert "Smoothness and latency" in page
    lines = write_interventions(report, tmp_path).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "time_s,kind,text"
    assert len(lines) == 1 + len(result.interventions)


def test_a_policy_that_fails_on_the_way_is_on_the_timeline(episode):
    result = run_replay(episode, Moody(), SHADOW)
    assert result.interventions.counts["policy failed"] == result.chunks // 3
    failed = [entry for entry in result.interventions if entry.kind == "policy failed"]
    assert {entry.text for entry in failed} == {"the third is one too many"}


def test_a_replay_that_spills_to_disk_gives_the_same_report(episode, monkeypatch):
    def report():
        chunks = ChunkLog()
        result = run_replay(episode, Oracle(offset=0.05), SHADOW, on_chunk=chunks.append)
        made = [(c.observation_ns, c.context_ns, c.committed, c.actions.tolist()) for c in chunks]
        data = make_replay_report(ORIGIN, result).to_dict()
        return {**data, "created": ""}, made

    in_memory = report()
    monkeypatch.setattr(scratch, "_BLOCK_BYTES", 1024)
    assert report() == in_memory
