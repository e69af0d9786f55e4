"""Recordings of the experts: what is in them, and that failures and half bags leave nothing behind."""

import numpy as np
import pytest

from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.errors import WorldError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.sim import expert, record
from dit_policy_ros.sim.body import CAMERA_PERIOD_NS, CONTROL_NS, IMAGE_SIZES, AlohaBody
from dit_policy_ros.sim.expert import plan_episode
from dit_policy_ros.sim.record import HOLD_STEPS, record_episode, record_many

SEED = 100_000


@pytest.fixture(scope="module")
def body():
    body = AlohaBody("aloha_language", load_robot("aloha"))
    yield body
    body.close()


@pytest.fixture(scope="module")
def bag(body, tmp_path_factory):
    path = tmp_path_factory.mktemp("record") / "episode"
    outcome = record_episode(body, SEED, path)
    assert outcome.strict
    assert outcome.bytes > 100_000
    return path


def test_a_recording_holds_what_the_live_graph_carries(bag, body):
    robot = body.robot
    episode = open_episode(bag, robot)
    body.reset(SEED, "train")
    plan = plan_episode(body)
    steps = len(plan.targets) + HOLD_STEPS
    assert episode.instruction == body.instruction
    assert episode.metadata.world == "aloha_language"
    assert episode.metadata.seed == SEED
    assert episode.metadata.outcome == "strict"
    assert len(episode.joints.times_ns) == steps
    assert set(np.diff(episode.joints.times_ns)) == {CONTROL_NS}
    for camera, (width, height) in IMAGE_SIZES.items():
        stamps = episode.image_stamps_ns(camera)
        assert set(np.diff(stamps)) == {CAMERA_PERIOD_NS}
        _, image = next(episode.frames(camera))
        assert image.shape == (height, width, 3)
    topics = set(episode.bag.topics)
    assert {"/clock", "/joint_states", "/instruction", "/top/image_raw/compressed"} <= topics
    assert {controller.topic for controller in robot.controllers} <= topics


def test_commands_in_the_bag_are_the_undisturbed_plan(bag, body):
    episode = open_episode(bag, body.robot)
    body.reset(SEED, "train")
    plan = plan_episode(body)
    times_ns = episode.joints.times_ns[: len(plan.targets)]
    np.testing.assert_allclose(episode.targets_at(times_ns), plan.targets, atol=1e-9)


def test_disturbances_are_seen_in_the_joints_and_can_be_switched_off(body, tmp_path, bag):
    record_episode(body, SEED, tmp_path / "calm", disturb=False)
    calm, pushed = (open_episode(path, body.robot).joints.positions for path in (tmp_path / "calm", bag))
    assert np.abs(calm - pushed).max() > 1e-3


def test_the_phrase_set_is_used(body, tmp_path):
    record_episode(body, SEED, tmp_path / "plain", phrase_set="plain", disturb=False)
    colour = body.world.task(SEED)
    assert open_episode(tmp_path / "plain", body.robot).instruction == f"hand the {colour} cube to the left arm"


def test_a_switch_says_both_instructions_and_commands_only_what_was_known(tmp_path):
    body = AlohaBody("aloha_switch", load_robot("aloha"))
    outcome = record_episode(body, SEED, tmp_path / "switch", disturb=False)
    assert outcome.strict
    episode = open_episode(tmp_path / "switch", body.robot)
    body.rewind()
    body.reset(SEED, "train")
    event, plan, start_ns = body.episode.event, plan_episode(body), body.start_ns
    event_ns = start_ns + event.step * CONTROL_NS
    assert episode.instructions == ((start_ns, body.instruction), (event_ns, event.instruction))
    assert episode.metadata.surprises_ns == (event_ns,)
    ((replan_step, given_up),) = plan.given_up
    replan_ns = start_ns + replan_step * CONTROL_NS
    for controller in body.robot.controllers:
        columns = [body.joint_names.index(joint) for joint in controller.joints]
        sent = episode.commands[controller.name]
        assert replan_ns in [command.sent_ns for command in sent]
        for command in sent:
            meant = given_up if command.sent_ns < replan_ns else plan.targets
            steps = np.minimum((command.trajectory.times_ns - start_ns) // CONTROL_NS, len(meant) - 1)
            np.testing.assert_allclose(command.trajectory.positions, meant[np.ix_(steps, columns)], atol=1e-9)
    times_ns = start_ns + CONTROL_NS * np.arange(len(plan.targets))
    np.testing.assert_allclose(episode.targets_at(times_ns), plan.targets, atol=1e-9)
    body.close()


def test_a_nudge_is_seen_and_noted(tmp_path):
    body = AlohaBody("aloha_nudged", load_robot("aloha"))
    assert record_episode(body, SEED, tmp_path / "nudged").strict
    record_episode(body, SEED, tmp_path / "quick", disturb=False)
    episode = open_episode(tmp_path / "nudged", body.robot)
    assert len(episode.instructions) == 1
    event_ns = episode.joints.times_ns[0] + CONTROL_NS * body.world.sample(SEED, "train").event.step
    assert episode.metadata.surprises_ns == (event_ns,)
    (late_ns,) = episode.metadata.answers_ns
    (quick_ns,) = open_episode(tmp_path / "quick", body.robot).metadata.answers_ns
    assert quick_ns == event_ns + expert.REACTION_STEPS * CONTROL_NS
    assert quick_ns < late_ns < event_ns + record.LATE_STEPS[1] * CONTROL_NS
    body.close()


def test_a_failure_leaves_no_bag(body, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "plan_episode", lambda body, reaction_steps: plan_that_does_nothing(body))
    outcome = record_episode(body, SEED, tmp_path / "failed")
    assert not outcome.strict
    assert list(tmp_path.iterdir()) == []


def plan_that_does_nothing(body):
    from dit_policy_ros.sim.expert import Plan

    return Plan(np.tile(body.joint_positions(), (30, 1)), np.ones(30))


def test_seeds_that_exist_are_not_overwritten(body, tmp_path):
    (tmp_path / f"aloha_language_{SEED:06d}").mkdir()
    with pytest.raises(WorldError, match="another --seed or --out"):
        list(record_many("aloha_language", body.robot, range(SEED, SEED + 1), tmp_path, "train", True, 1))


@pytest.mark.slow
def test_workers_record_the_same_bags_as_one_process(body, tmp_path):
    seeds = range(SEED, SEED + 2)
    for workers in (1, 2):
        outcomes = list(
            record_many("aloha_language", body.robot, seeds, tmp_path / str(workers), "train", True, workers)
        )
        assert sorted(outcome.seed for outcome in outcomes) == list(seeds)
    for seed in seeds:
        name = f"aloha_language_{seed:06d}/aloha_language_{seed:06d}.mcap"
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
