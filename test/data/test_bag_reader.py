import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from dit_policy_ros import __version__
from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.errors import BagError
from dit_policy_ros.types import Observation, Trajectory


@pytest.mark.parametrize("single_file", [False, True])
def test_what_is_written_is_what_is_read(recorded, robot, single_file):
    episode = open_episode(recorded.path / "episode.mcap" if single_file else recorded.path, robot)
    assert episode.instruction == "lift it"
    assert episode.instructions == ((int(recorded.times_ns[0]), "lift it"),)
    assert (episode.metadata.world, episode.metadata.seed, episode.lost) == ("aloha_transfer_cube", 7, "")
    np.testing.assert_array_equal(episode.joints.times_ns, recorded.times_ns)
    np.testing.assert_array_equal(episode.joints.positions, recorded.positions)
    np.testing.assert_array_equal(episode.joints.velocities, recorded.positions)
    np.testing.assert_array_equal(episode.targets_at(recorded.times_ns + 20_000_000), recorded.targets)
    for camera in robot.cameras:
        np.testing.assert_array_equal(episode.image_stamps_ns(camera), recorded.image_times_ns)
        frames = list(episode.frames(camera))
        np.testing.assert_array_equal([stamp_ns for stamp_ns, _ in frames], recorded.image_times_ns)
        for (_, image), original in zip(frames, recorded.images, strict=True):
            assert np.abs(image.astype(int) - original).mean() < 3


def test_sqlite3_and_foreign_bags(recorded, robot, tmp_path):
    """A bag of another recorder: other storage, no custom data, no stamps in the definitions."""
    path = tmp_path / "foreign"
    with Reader(recorded.path) as reader, Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        known = {}
        for connection, log_ns, cdr in reader.messages():
            if connection.topic not in known:
                known[connection.topic] = writer.add_connection(
                    connection.topic, connection.msgtype, msgdef=connection.msgdef.data, rihs01=connection.digest
                )
            writer.write(known[connection.topic], log_ns, cdr)
    for bag in (path, path / "foreign.db3"):
        episode = open_episode(bag, robot)
        np.testing.assert_array_equal(episode.joints.positions, recorded.positions)
        assert episode.metadata.world == ""
        assert len(list(episode.frames("top"))) == len(recorded.images)


def test_raw_images_are_exact_and_either_transport_is_found(robot, recorded, tmp_path):
    raw = replace(robot, cameras={name: replace(camera, transport="raw") for name, camera in robot.cameras.items()})
    with EpisodeWriter(tmp_path / "episode", raw) as writer:
        writer.instruction(5, "go")
        joints = dict.fromkeys(robot.names, 0.5)
        writer.observation(Observation(8, joints, {}, {"top": recorded.images[0]}, {"top": 6}))
    for spec in (raw, robot):
        episode = open_episode(tmp_path / "episode", spec)
        ((stamp_ns, image),) = episode.frames("top")
        assert stamp_ns == 6
        np.testing.assert_array_equal(image, recorded.images[0])
        assert episode.joints.velocities is None


def test_joints_are_found_by_name(robot, tmp_path):
    """Another order, another joint between them, and a stamp that comes twice."""
    names = (*reversed(robot.names), "lift")
    with EpisodeWriter(tmp_path / "episode", robot) as writer:
        writer.instruction(5, "go")
        writer.joint_state(30, names, np.arange(15.0))
        writer.joint_state(10, names, np.arange(15.0) + 1)
        writer.joint_state(10, names, np.arange(15.0) + 2)
    joints = open_episode(tmp_path / "episode", robot).joints
    np.testing.assert_array_equal(joints.times_ns, [10, 30])
    np.testing.assert_array_equal(joints.positions, [np.arange(13.0, -1, -1) + 2, np.arange(13.0, -1, -1)])


def test_a_later_command_replaces_the_rest_of_an_earlier_one(robot, tmp_path):
    left, right = robot.controllers
    with EpisodeWriter(tmp_path / "episode", robot) as writer:
        writer.instruction(0, "go")
        writer.joint_state(0, robot.names, np.zeros(14))
        ramp = np.linspace(0.0, 4.0, 5)[:, None] * np.ones(7)
        writer.command(left.name, 0, Trajectory(left.joints, np.array([0, 100, 200, 300, 400]), ramp))
        writer.command(left.name, 150, Trajectory(left.joints, np.array([250, 350]), ramp[:2] - 10))
    episode = open_episode(tmp_path / "episode", robot)
    assert [command.sent_ns for command in episode.commands[left.name]] == [0, 150]
    with pytest.raises(BagError, match="right_arm_controller was sent no trajectory"):
        episode.targets_at(np.array([0]))
    with EpisodeWriter(tmp_path / "both", robot) as writer:
        writer.instruction(0, "go")
        writer.joint_state(0, robot.names, np.zeros(14))
        writer.command(left.name, 0, Trajectory(left.joints, np.array([0, 100, 200, 300, 400]), ramp))
        writer.command(left.name, 150, Trajectory(left.joints, np.array([250, 350]), ramp[:2] - 10))
        writer.command(right.name, 0, Trajectory(right.joints, np.array([0]), np.ones((1, 7))))
    times_ns = np.array([-50, 0, 50, 200, 225, 250, 300, 350, 900])
    targets = open_episode(tmp_path / "both", robot).targets_at(times_ns)
    np.testing.assert_allclose(targets[:, 0], [0, 0, 0.5, 2, -4, -10, -9.5, -9, -9])
    np.testing.assert_array_equal(targets[:, 7:], 1.0)


def test_missing_instruction(record, robot):
    with pytest.raises(BagError, match=r"has no instruction: nothing on /instruction") as caught:
        open_episode(record(instruction=None).path, robot)
    assert "\n" not in str(caught.value)


def test_missing_topics_list_those_present(recorded, robot):
    with pytest.raises(BagError, match=r"no message on /js \(joint states\). Topics present: /clock, /instruction"):
        open_episode(recorded.path, replace(robot, joint_states_topic="/js"))
    with pytest.raises(BagError, match=r"topic /clock carries rosgraph_msgs/msg/Clock; it must be sensor_msgs"):
        open_episode(recorded.path, replace(robot, joint_states_topic="/clock"))
    with pytest.raises(BagError, match="it must be std_msgs/msg/String"):
        open_episode(recorded.path, replace(robot, instruction_topic="/clock"))
    cameras = {"side": replace(robot.cameras["top"], topic="/side")}
    episode = open_episode(recorded.path, replace(robot, cameras=cameras))
    with pytest.raises(BagError, match="images of camera side"):
        episode.image_stamps_ns("side")
    with pytest.raises(BagError, match="Camera 'top' does not exist"):
        next(episode.frames("top"))


def test_wrong_joints_and_values_are_refused(robot, tmp_path):
    def bag(name, names, positions, waypoint=0.0, joints=None):
        with EpisodeWriter(tmp_path / name, robot) as writer:
            writer.instruction(5, "go")
            writer.joint_state(5, names, positions)
            left = robot.controllers[0]
            trajectory = Trajectory(joints or left.joints, np.array([7]), np.full((1, 7), waypoint))
            writer.command(left.name, 6, trajectory)
        return tmp_path / name

    fine = np.zeros(14)
    cases = [
        (bag("a", ("other", *robot.names[1:]), fine), "joint left_waist is missing; the message names other"),
        (bag("b", robot.names, np.array([np.nan, *fine[1:]])), "left_waist is not finite at 0.000 s"),
        (bag("c", robot.names, fine[:5]), "14 names but 5 positions"),
        (bag("d", (*robot.names, robot.names[3]), np.zeros(15)), "left_forearm_roll is named twice"),
        (bag("e", robot.names, fine, waypoint=np.inf), "not finite"),
        (bag("f", robot.names, fine, joints=robot.names[7:]), "but left_arm_controller moves left_waist"),
    ]
    for path, match in cases:
        with pytest.raises(BagError, match=match) as caught:
            open_episode(path, robot)
        assert "\n" not in str(caught.value)


def test_no_bag_and_no_image(robot, tmp_path):
    with pytest.raises(BagError, match="There is no bag at"):
        open_episode(tmp_path / "nowhere", robot)
    with pytest.raises(BagError, match=r"has no metadata.yaml and 0 bag files"):
        open_episode(tmp_path, robot)
    (tmp_path / "a.bag").write_bytes(b"#ROSBAG V2.0")
    with pytest.raises(BagError, match="is no bag; give a rosbag2 folder"):
        open_episode(tmp_path / "a.bag", robot)
    with EpisodeWriter(tmp_path / "episode", robot) as writer:
        writer.instruction(5, "go")
        writer.joint_state(5, robot.names, np.zeros(14))
        writer.compressed_image("top", 5, b"no image")
    with pytest.raises(BagError, match=r"/top/image_raw/compressed: A compressed image .* cannot be decoded"):
        next(open_episode(tmp_path / "episode", robot).frames("top"))
    (tmp_path / "episode" / "episode.mcap").unlink()
    with pytest.raises(BagError, match=r"lacks episode.mcap"):
        open_episode(tmp_path / "episode", robot)
    (tmp_path / "episode" / "metadata.yaml").write_text("a: [")
    with pytest.raises(BagError, match="damaged metadata"):
        open_episode(tmp_path / "episode", robot)


@pytest.fixture(scope="module")
def uneven(robot, tmp_path_factory):
    """A bag of several chunks, because its images do not compress."""
    path = tmp_path_factory.mktemp("cut") / "episode"
    rng = np.random.default_rng(0)
    with EpisodeWriter(path, robot) as writer:
        writer.instruction(0, "go")
        for k in range(60):
            writer.joint_state(k, robot.names, rng.normal(size=14))
            noise = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
            writer.compressed_image("top", k, cv2.imencode(".png", noise)[1].tobytes(), "png")
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(fraction=st.floats(0.0, 1.0, exclude_max=True), with_metadata=st.booleans())
def test_a_file_cut_anywhere_is_refused_and_what_is_whole_is_recovered(
    uneven, robot, tmp_path, fraction, with_metadata
):
    whole = open_episode(uneven, robot)
    data = (uneven / "episode.mcap").read_bytes()
    folder = tmp_path / "cut"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "episode.mcap").write_bytes(data[: int(fraction * len(data))])
    if with_metadata:
        shutil.copy(uneven / "metadata.yaml", folder)
    with pytest.raises(BagError, match=r"is cut short|is empty") as caught:
        open_episode(folder, robot)
    assert "\n" not in str(caught.value)
    try:
        episode = open_episode(folder, robot, recover=True)
    except BagError as problem:
        assert "\n" not in str(problem)  # noqa: PT017
        assert fraction < 0.3
        return
    count = len(episode.joints.times_ns)
    np.testing.assert_array_equal(episode.joints.positions, whole.joints.positions[:count])
    frames = list(episode.frames("top"))
    assert count - 1 <= len(frames) <= count
    for (stamp_ns, image), (known_ns, known) in zip(frames, whole.frames("top"), strict=False):
        assert stamp_ns == known_ns
        np.testing.assert_array_equal(image, known)
    kept = count + len(frames) + 1
    assert f"{kept} messages over" in episode.lost
    if with_metadata:
        assert f"{121 - kept} of 121 messages are lost" in episode.lost


def test_metadata_of_others_is_ignored_and_a_bad_seed_refused(recorded, robot, tmp_path):
    shutil.copytree(recorded.path, tmp_path / "episode")
    file = tmp_path / "episode" / "metadata.yaml"
    text = file.read_text()
    file.write_text(text.replace("dit_policy_ros.world:", "their.world:"))
    assert open_episode(tmp_path / "episode", robot).metadata == EpisodeMetadata(
        "aloha", "lift it", "", 7, "", __version__
    )
    file.write_text(text.replace("dit_policy_ros.seed: '7'", "dit_policy_ros.seed: seven"))
    with pytest.raises(BagError, match="seed 'seven'"):
        open_episode(tmp_path / "episode", robot)
