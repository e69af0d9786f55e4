from __future__ import annotations

import json
import re
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.errors import BagError, ConfigError, PolicyError
from dit_policy_ros.evaluate.horizon_errors import METHODS, HorizonErrors
from dit_policy_ros.evaluate.loop import LoopConfig
from dit_policy_ros.evaluate.replay import OPEN_LOOP, SHADOW, run_replay
from dit_policy_ros.evaluate.replay_page import View, moment_images, render_replay
from dit_policy_ros.evaluate.replay_report import ReplayOrigin, make_replay_report, recording_sha256
from dit_policy_ros.robot import load_robot
from dit_policy_ros.types import ActionChunk, Context, Observation, Trajectory

SPEC = load_robot("aloha")
MS = 1_000_000
STEP = 20 * MS
START = 5_000 * MS
STEPS = 150
HOME = np.array([0.5 if "gripper" in name else 0.3 if "left" in name else -0.3 for name in SPEC.names])
PHASE = np.arange(14)
ORIGIN = ReplayOrigin("bag", "ab", "tiny", "cd", "aloha", "ef", {"context": 0.3, "action": 0.06})


def wave(times_ns) -> np.ndarray:
    t = (np.asarray(times_ns, dtype=float) - START)[:, None] * 1e-9
    return HOME + 0.3 * np.sin(2.0 * t + PHASE)


def write_bag(path, with_commands=True, instructions=((0, "wave"),)):
    """Arms that follow a wave 40 ms late; every 100 ms the controllers are told the next half second."""
    with EpisodeWriter(path, SPEC, EpisodeMetadata()) as writer:
        for at, text in instructions:
            writer.instruction(START + at * STEP, text)
        for k in range(STEPS):
            now_ns = START + k * STEP
            shown = dict.fromkeys(SPEC.cameras, np.full((8, 8, 3), k, np.uint8)) if k % 4 == 0 else {}
            measured = wave([now_ns - 40 * MS])[0]
            joints = dict(zip(SPEC.names, measured.tolist(), strict=True))
            writer.observation(Observation(now_ns, joints, {}, shown))
            if with_commands and k % 5 == 0:
                times_ns = now_ns + STEP * np.arange(25)
                for controller in SPEC.controllers:
                    columns = [SPEC.names.index(name) for name in controller.joints]
                    trajectory = Trajectory(controller.joints, times_ns, wave(times_ns)[:, columns])
                    writer.command(controller.name, now_ns, trajectory)
    return path


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("bags") / "wave")


@pytest.fixture(scope="module")
def episode(bag):
    return open_episode(bag, SPEC)


class Oracle:
    """Says what was commanded, plus an offset; through the slots of a robot, as a foundation model does."""

    horizon, step_ns, commit_multiple = 24, STEP, 4
    slow_cameras, fast_cameras = ("top",), ("left_wrist", "right_wrist")

    def __init__(self, offset=0.0, slots=SPEC.slots, scale=1.0):
        self.offset, self.slots, self.scale = offset, slots, scale
        self.heard: list[tuple[int, str]] = []
        self.prefixes: list[ActionChunk | None] = []

    def encode(self, observation, instruction, epoch=0):
        self.heard.append((epoch, instruction))
        return Context(observation.stamp_ns, instruction, epoch, {})

    def act(self, observation, context, committed=None):
        self.prefixes.append(committed)
        assert set(observation.images) == set(self.fast_cameras)
        times_ns = observation.stamp_ns + STEP * np.arange(self.horizon)
        unified = SPEC.slots.to_unified(HOME + self.scale * (wave(times_ns) - HOME) + self.offset)
        actions = self.slots.from_unified(unified)
        if committed is not None:
            columns = [committed.names.index(name) for name in self.slots.names]
            actions[: len(committed.actions)] = committed.actions[:, columns]
        stamp_ns = observation.stamp_ns
        count = 0 if committed is None else len(committed.actions)
        return ActionChunk(self.slots.names, stamp_ns, STEP, actions, stamp_ns, context.stamp_ns, context.epoch, count)


def swapped():
    """The robot with the slots of its arms exchanged."""

    def other(slot):
        return slot.replace("left", "?").replace("right", "left").replace("?", "right")

    return replace(SPEC, joints=tuple(replace(joint, slot=other(joint.slot)) for joint in SPEC.joints))


def test_a_policy_that_is_right_has_no_error_and_no_suspicion(episode):
    result = run_replay(episode, Oracle())
    assert result.errors.overall[0] < 1e-9
    assert (result.errors.overall[1:] > 0.005).all()
    assert result.suspicions == ()
    assert result.refusals == {}
    assert result.chunks == len(result.errors.chunk_ns) > 5
    np.testing.assert_allclose(result.times_s, 0.02 * np.arange(STEPS))


def test_an_offset_is_the_error_of_every_joint_and_step_that_was_not_committed(episode):
    errors = run_replay(episode, Oracle(offset=0.1)).errors
    np.testing.assert_allclose(errors.per_joint[0], 0.1)
    counted = errors.counts > 0
    np.testing.assert_allclose(errors.mean[0, counted], 0.1)
    np.testing.assert_allclose(errors.per_chunk[:, 0], 0.1)
    # The first chunk already begins with what was commanded next; only steps after it count.
    assert not counted[:4].any()
    assert counted[8:].all()


def test_in_open_loop_the_prefix_is_what_was_recorded(episode):
    policy = Oracle(offset=0.1)
    run_replay(episode, policy, OPEN_LOOP)
    assert all(prefix is not None for prefix in policy.prefixes)
    for prefix in policy.prefixes:
        np.testing.assert_allclose(prefix.actions, wave(prefix.times_ns), atol=1e-9)


def test_in_shadow_the_prefix_is_what_the_executor_would_have_sent(episode):
    policy = Oracle(offset=0.1)
    result = run_replay(episode, policy, SHADOW)
    assert policy.prefixes[0] is None
    late = policy.prefixes[-1]
    np.testing.assert_allclose(late.actions, np.clip(wave(late.times_ns) + 0.1, SPEC.lower, SPEC.upper), atol=1e-9)
    moving = ~np.isnan(result.commanded).any(axis=1)
    times_ns = START + (result.times_s[moving] * 1e9).round().astype(np.int64)
    expected = np.clip(wave(times_ns) + 0.1, SPEC.lower, SPEC.upper)
    # A jump of 0.1 rad is too far for one step; the limiter has caught up with it 0.4 s later.
    np.testing.assert_allclose(result.commanded[moving][20:], expected[20:], atol=1e-3)
    assert result.trajectories == 2 * len(result.seams.array("position"))


def test_baselines_are_what_their_names_say():
    class Line:
        """One joint commanded along a line, another at rest."""

        def at(self, times_ns):
            return np.stack([np.asarray(times_ns) * 1e-9, np.zeros(len(times_ns))], axis=1)

    ones = np.full(2, 100.0)
    errors = HorizonErrors(("a", "b"), -ones, ones, Line(), horizon=5)
    chunk = ActionChunk(("b", "a"), 1_000 * MS, 100 * MS, np.zeros((5, 2)), 1_000 * MS, committed=2)
    errors.add(chunk, measured=np.array([0.5, 0.25]))
    mean = errors.summary().mean
    assert METHODS == ("policy", "hold", "repeat", "linear")
    assert np.isnan(mean[:, :2]).all()
    np.testing.assert_allclose(mean[0, 2:, 0], [1.2, 1.3, 1.4])
    np.testing.assert_allclose(mean[1, 2:, 0], [0.7, 0.8, 0.9])
    np.testing.assert_allclose(mean[2, 2:, 0], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(mean[3, 2:], 0.0, atol=1e-12)
    np.testing.assert_allclose(mean[1, 2:, 1], 0.25)


def test_limits_that_would_be_hit_are_on_the_timeline(episode):
    result = run_replay(episode, Oracle(offset=0.1, scale=1.9), SHADOW)
    by_kind = {kind: [e for e in result.interventions if e.kind == kind] for kind in ("position limit", "state")}
    assert "left_gripper" in by_kind["position limit"][0].text
    assert result.hits["position limit"][SPEC.names.index("left_gripper")] > 0
    assert by_kind["state"][0].text == "holding: activated"
    hits = sum(int(n) for e in by_kind["position limit"] for n in re.findall(r"\((\d+)\)", e.text))
    assert hits == result.hits["position limit"].sum()


def test_refused_chunks_are_on_the_timeline(episode):
    result = run_replay(episode, Oracle(offset=5.0), SHADOW)
    assert result.refusals["first jump"] == result.chunks
    refused = [entry for entry in result.interventions if entry.kind == "refused"]
    assert [entry.text for entry in refused] == ["first jump"] * result.chunks
    assert result.trajectories == 0


def test_exchanged_arms_are_flagged(episode):
    """A robot description whose left joints fill the right arm's slots."""
    wrong = swapped()
    result = run_replay(replace(episode, robot=wrong), Oracle(slots=wrong.slots))
    assert result.errors.overall[0] > 1.5 * result.errors.overall[1]
    said = "\n".join(result.suspicions)
    assert "left_waist (arms.left, slot right_arm_joint_0_pos)" in said
    assert "What the policy says for one arm fits what was recorded of the other" in said
    assert "times as far from the recording as holding still would be" in said
    page = render_replay(make_replay_report(ORIGIN, result), {})
    assert 'class="alarm"' in page
    assert "fits what was recorded of the other" in page


@pytest.mark.parametrize("what", ["slots", "arms"])
def test_exchanged_arms_are_visibly_bad_for_a_policy_that_goes_by_names(episode, what):
    """Such a policy does what it always did; the description is what is wrong, and the page must not look fine."""

    def arm(joint):
        return replace(joint, arm={"left": "right", "right": "left"}[joint.arm])

    wrong = swapped() if what == "slots" else replace(SPEC, joints=tuple(map(arm, SPEC.joints)))
    result = run_replay(replace(episode, robot=wrong), Oracle())
    assert run_replay(episode, Oracle()).errors.overall[0] < 1e-9
    assert result.errors.overall[0] > 3 * result.errors.overall[1]
    assert (result.errors.per_joint[0] > 0.1).sum() >= 10
    said = "\n".join(result.suspicions)
    assert "Names and places contradict each other" in said
    assert "fits what was recorded of the other" in said
    page = render_replay(make_replay_report(ORIGIN, result), {})
    assert 'class="alarm"' in page
    assert page.count('class="number bad"') >= 10


def test_a_policy_that_is_far_off_is_flagged_without_blaming_the_arms(episode):
    said = run_replay(episode, Oracle(offset=0.5)).suspicions
    assert len(said) == 2
    assert "as holding still would be" in said[0]
    assert said[1].startswith("Farther from the recording than holding still: left_waist (0.50 against")


def test_another_instruction_begins_a_new_epoch(tmp_path):
    path = write_bag(tmp_path / "two", instructions=((0, "wave"), (70, "stop waving")))
    policy = Oracle()
    run_replay(open_episode(path, SPEC), policy)
    assert policy.heard[0] == (1, "wave")
    assert policy.heard[-1] == (2, "stop waving")


def test_delays_are_those_asked_for(episode):
    slow = run_replay(episode, Oracle(), SHADOW, LoopConfig(context_delay_s=0.6, action_delay_s=0.1))
    fast = run_replay(episode, Oracle(), SHADOW, LoopConfig(context_delay_s=0.0, action_delay_s=0.0))
    assert slow.encodes < fast.encodes
    assert np.nanmin(slow.context_ages_s) >= 0.6
    assert np.nanmin(fast.context_ages_s) == 0.0


def test_two_runs_in_two_places_give_the_same_report_but_for_the_date(bag, tmp_path, monkeypatch):
    def report(folder):
        path = write_bag(tmp_path / folder / "wave")
        result = run_replay(open_episode(path, SPEC), Oracle(offset=0.05), SHADOW)
        return make_replay_report(replace(ORIGIN, bag_sha256=recording_sha256(path)), result).to_dict()

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    first = report("a")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    second = report("b")
    assert first.pop("created") != second.pop("created")
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    assert first["bag"]["sha256"] == recording_sha256(bag)
    assert first["command"].startswith("python -m dit_policy_ros replay bag --policy tiny --robot aloha --mode shadow")


def test_no_wall_clock_is_read(episode, monkeypatch):
    def forbidden(*_):
        raise AssertionError("a wall clock was read")

    for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"):
        monkeypatch.setattr(time, name, forbidden)
    assert run_replay(episode, Oracle()).chunks > 0


def test_page_and_json_say_the_same(episode):
    result = run_replay(episode, Oracle(offset=0.05), SHADOW)
    report = make_replay_report(replace(ORIGIN, bag="<b>wave</b>"), result)
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["error"]["overall"]["policy"] == pytest.approx(0.05)
    assert set(data["error"]["per_joint"]) == set(SPEC.names)
    assert len(data["error"]["per_horizon_step"]["hold"]) == Oracle.horizon
    assert data["error"]["per_horizon_step"]["policy"][0] is None or data["error"]["chunks_at_step"][0] > 0
    moments = [moment["error"] for moment in data["worst_moments"]]
    assert moments == sorted(moments, reverse=True)
    images = moment_images(episode, report, ("top", "left_wrist"))
    page = render_replay(report, images)
    assert "<b>wave</b>" not in page
    assert page.count("data:image/jpeg;base64,") == 2 * len(images) == 6
    assert "http" not in page.replace("http://www.w3.org", "")
    assert all(name in page for name in SPEC.names)
    assert "What the executor would have done" in page
    assert "What the executor would have done" not in render_replay(
        make_replay_report(ORIGIN, run_replay(episode, Oracle(), OPEN_LOOP)), {}
    )


def test_paths_of_the_hands_are_drawn_into_calibrated_cameras(episode):
    class Hands:
        """Both hands lie under the top camera, moved by the waists."""

        def tips(self, positions):
            return {side: np.array([0.2 * positions[f"{side}_waist"], 0.6, 0.0]) for side in ("left", "right")}

        def body_pose(self, body, positions):
            return np.eye(4)

    report = make_replay_report(ORIGIN, run_replay(episode, Oracle(offset=0.05)))
    images = moment_images(episode, report, ("top",))
    page = render_replay(report, images, View(SPEC, Hands()))
    plain = render_replay(report, images)
    assert page.count("top with the paths of the hands") == len(images)
    assert page.count('<path class="line policy" style="stroke-width:4.0"') == 2 * len(images)
    assert page.count('<path class="line recorded" style="stroke-width:4.0"') == 2 * len(images)
    assert "where the fingers go" not in plain
    bare = replace(SPEC, cameras={name: replace(camera, calibration=None) for name, camera in SPEC.cameras.items()})
    assert "with the paths of the hands" not in render_replay(report, images, View(bare, Hands()))


def test_images_of_a_moment_are_those_seen_then(episode):
    report = make_replay_report(ORIGIN, run_replay(episode, Oracle(offset=0.05)))
    for stamp_ns, images in moment_images(episode, report, ("top",)).items():
        grey = cv2.imdecode(np.frombuffer(images["top"], np.uint8), cv2.IMREAD_COLOR)
        assert abs(float(grey.mean()) - (stamp_ns - START) / STEP) < 3


def test_what_cannot_be_replayed_is_named(episode, tmp_path):
    with pytest.raises(BagError, match="has no command for left_arm_controller"):
        run_replay(open_episode(write_bag(tmp_path / "silent", with_commands=False), SPEC), Oracle())
    with pytest.raises(ConfigError, match=r"Mode 'fast' .* open-loop, shadow"):
        run_replay(episode, Oracle(), "fast")

    class Eyes(Oracle):
        slow_cameras = ("chest",)

    with pytest.raises(PolicyError, match="looks at camera chest, which robot aloha lacks"):
        run_replay(episode, Eyes())

    class Legs(Oracle):
        def act(self, observation, context, committed=None):
            return replace(super().act(observation, context, committed), names=tuple(f"leg_{k}" for k in range(14)))

    with pytest.raises(PolicyError, match=r"The policy moves leg_0, .* but robot aloha has left_waist"):
        run_replay(episode, Legs())
    with pytest.raises(BagError, match="no chunk could be compared"):
        run_replay(episode, Oracle(), config=LoopConfig(context_delay_s=60.0))
