from dataclasses import replace

import numpy as np
import pytest

from dit_policy_ros.data import bag_reader
from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.recorded_body import RecordedBody, RecordedTargets
from dit_policy_ros.errors import BagError
from dit_policy_ros.types import Observation, Trajectory

MS = 1_000_000


@pytest.fixture
def body(recorded, robot):
    return RecordedBody(open_episode(recorded.path, robot), ("top", "left_wrist"))


def test_joints_are_those_of_the_clock(body, recorded, robot):
    for k in range(3):
        assert body.now_ns() == recorded.times_ns[k]
        observation = body.observe()
        assert (observation.stamp_ns, observation.images) == (recorded.times_ns[k], {})
        np.testing.assert_allclose([observation.positions[name] for name in robot.names], recorded.positions[k])
        body.step()


def test_between_samples_joints_are_interpolated(recorded, robot):
    body = RecordedBody(open_episode(recorded.path, robot), period_ns=5 * MS)
    body.step()
    expected = 0.75 * recorded.positions[0] + 0.25 * recorded.positions[1]
    positions = body.observe().positions
    np.testing.assert_allclose([positions[name] for name in robot.names], expected)


def test_images_are_the_newest_that_are_not_newer(body, recorded):
    for k in range(10):
        observation = body.observe(("top",))
        newest = k // 4
        assert observation.image_stamps_ns == {"top": recorded.image_times_ns[newest]}
        assert np.abs(observation.images["top"].astype(int) - recorded.images[newest]).mean() < 6
        body.step()


def test_an_image_is_decoded_once_and_only_if_wanted(body, monkeypatch):
    decoded = []
    original = bag_reader.decode_compressed
    monkeypatch.setattr(bag_reader, "decode_compressed", lambda *a: decoded.append(1) or original(*a))
    for _ in range(9):
        body.step()
    assert decoded == []
    first, second = body.observe(("top",)), body.observe(("top",))
    assert len(decoded) == 1
    assert first.images["top"] is second.images["top"]


def test_before_its_first_image_a_camera_is_absent(robot, tmp_path):
    image = np.zeros((4, 4, 3), np.uint8)
    joints = dict.fromkeys(robot.names, 0.0)
    with EpisodeWriter(tmp_path / "bag", robot) as writer:
        writer.instruction(MS, "one")
        for ms in range(1, 100, 20):
            writer.observation(Observation(ms * MS, joints, {}, {"top": image} if ms > 30 else {}))
            if ms == 41:
                writer.instruction(45 * MS, "two")
    body = RecordedBody(open_episode(tmp_path / "bag", robot), ("top",))
    said = []
    for expected in ({}, {}, {"top"}, {"top"}, {"top"}):
        assert body.observe(("top",)).images.keys() == set(expected)
        said.append(body.instruction)
        body.step()
    assert said == ["one", "one", "one", "two", "two"]
    assert body.is_over


def test_commands_are_noted_and_move_nothing(body, robot):
    before = body.observe().positions
    sent = Trajectory(robot.controllers[0].joints, np.array([body.now_ns() + MS]), np.ones((1, 7)))
    body.command(sent)
    assert body.commands == [(body.now_ns(), sent)]
    assert body.observe().positions == before


def test_a_camera_without_images_is_named_at_once(robot, record, tmp_path):
    cameras = {**robot.cameras, "chest": replace(robot.cameras["top"], name="chest", topic="/chest")}
    episode = open_episode(record().path, replace(robot, cameras=cameras))
    with pytest.raises(BagError, match=r"no message on /chest/compressed \(images of camera chest\)"):
        RecordedBody(episode, ("chest",))


def test_targets_are_unknown_outside_the_commands(recorded, robot):
    targets = RecordedTargets(open_episode(recorded.path, robot))
    waypoints_ns = recorded.times_ns + 20 * MS
    np.testing.assert_allclose(targets.at(waypoints_ns), recorded.targets)
    outside = targets.at(np.array([waypoints_ns[0] - 1, waypoints_ns[-1] + 1]))
    assert np.isnan(outside).all()
