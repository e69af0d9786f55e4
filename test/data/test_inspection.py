from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from dit_policy_ros.data import messages
from dit_policy_ros.data.bag_writer import EpisodeWriter
from dit_policy_ros.data.image_size import image_size
from dit_policy_ros.data.images import encode_jpeg
from dit_policy_ros.data.inspection import inspect_bag
from dit_policy_ros.data.metadata import EpisodeMetadata
from dit_policy_ros.data.proposal import MARK, propose_robot, side_of
from dit_policy_ros.data.streams import StreamBuilder
from dit_policy_ros.data.thumbnails import thumbnails
from dit_policy_ros.errors import BagError, RobotError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.types import Trajectory

MS = 1_000_000
JOINTS = "/joint_states"
TOP = "/top/image_raw/compressed"


def found(inspection, subject: str) -> str:
    """All that is said about a topic."""
    return "\n".join(f"{entry.severity}: {entry.text}" for entry in inspection.findings if entry.subject == subject)


def stream(*stamps_ms: float, log_ms=None):
    builder = StreamBuilder("/x", messages.JOINT_STATE, has_header=True)
    for stamp, log in zip(stamps_ms, stamps_ms if log_ms is None else log_ms, strict=True):
        builder.add(int(log * MS), int(stamp * MS))
    return builder.build(*builder.span_ns)


def test_rate_gaps_and_drops():
    times = [*range(100, 200, 10), *range(240, 300, 10)]
    summary = stream(*times)
    assert (summary.count, summary.period_s, summary.dropped) == (16, 0.01, 4)
    assert summary.rate_hz == pytest.approx(15 / 0.19)
    assert [(gap.start_ns, gap.duration_ns) for gap in summary.gaps] == [(190 * MS, 50 * MS)]
    assert summary.longest_s == 0.05
    assert summary.presence[0] == 1.0
    assert 0.0 in summary.presence


def test_events_have_neither_gaps_nor_drops():
    summary = stream(10, 500, 510, 4000, 9000)
    assert (summary.gaps, summary.dropped) == ((), 0)
    assert summary.longest_s == 5.0
    assert sum(summary.presence) == 4


def test_order_of_stamps():
    summary = stream(100, 120, 110, 110, 130, 140)
    assert (summary.backwards, summary.duplicates) == (1, 1)


def test_an_unset_stamp_falls_back_to_the_time_of_recording():
    summary = stream(0, 110, 120, log_ms=(100, 112, 124))
    assert (summary.stamped, summary.unstamped) == (False, 1)
    assert summary.start_ns == 100 * MS
    assert summary.skew.median_s == pytest.approx(0.003)


def test_skew_is_recording_minus_stamp():
    skew = stream(100, 110, 120, log_ms=(105, 117, 123)).skew
    assert (skew.median_s, skew.lowest_s, skew.highest_s) == (0.005, 0.003, 0.007)


def test_a_good_bag_has_no_findings_but_its_joints(recorded, robot):
    inspection = inspect_bag(recorded.path, robot)
    assert inspection.streams[JOINTS].count == len(recorded.times_ns)
    assert inspection.streams[TOP].sizes == (("48x32 jpeg", 5),)
    assert inspection.instructions == ("lift it",)
    assert inspection.duration_s == pytest.approx(0.38)
    measured = {joint.name: joint for joint in inspection.joints[JOINTS]}
    for column, name in enumerate(robot.names):
        assert measured[name].lower == recorded.positions[:, column].min()
        assert measured[name].upper == recorded.positions[:, column].max()
    steps = np.abs(np.diff(recorded.positions[:, 0])).max() / 0.02
    assert measured[robot.names[0]].speed == pytest.approx(steps)
    # The values are random: some lie beyond the limits, and all of them jump.
    said = [finding.text for finding in inspection.findings]
    assert all("beyond its limits" in text or "moves at up to" in text for text in said)
    assert {finding.severity for finding in inspection.findings} == {"warning", "note"}


def test_beyond_limits_names_joint_and_both_ranges(recorded, robot):
    text = found(inspect_bag(recorded.path, robot), JOINTS)
    low, high = recorded.positions[:, 6].min(), recorded.positions[:, 6].max()
    assert f"warning: left_gripper is in [{low:.4g}, {high:.4g}], beyond its limits [0, 1]" in text


def write_bag(path, robot, joints_every_ms=10, skip=(), top_log_delay_ms=0, sizes=((48, 32),), positions=None):
    """Joint states over a second, a top camera at 10 Hz, nothing else."""
    with EpisodeWriter(path, robot, EpisodeMetadata(instruction="wave")) as writer:
        for ms in range(1000, 2000, joints_every_ms):
            if ms not in skip:
                values = np.full(14, 0.1) if positions is None else positions(ms)
                writer.joint_state(ms * MS, robot.names, values)
            if ms % 100 == 0:
                width, height = sizes[(ms // 100) % len(sizes)]
                jpeg = encode_jpeg(np.full((height, width, 3), 90, np.uint8))
                message = messages.compressed_image(ms * MS, "top", jpeg, "jpeg")
                cdr = messages.typestore().serialize_cdr(message, messages.COMPRESSED_IMAGE)
                writer.serialized(TOP, messages.COMPRESSED_IMAGE, (ms + top_log_delay_ms) * MS, bytes(cdr))
    return path


def test_what_a_robot_needs_and_the_bag_lacks(robot, tmp_path):
    inspection = inspect_bag(write_bag(tmp_path / "bag", robot), robot)
    assert found(inspection, "/left_arm_controller/joint_trajectory") == (
        "error: is missing (commands of left_arm_controller)"
    )
    assert found(inspection, "/left_wrist/image_raw") == "error: is missing, raw and compressed (camera left_wrist)"
    assert found(inspection, "/instruction") == "note: is missing (instructions; the metadata has one)"
    assert found(inspection, TOP) == ""
    assert inspection.findings[0].severity == "error"


def test_a_hole_in_the_joint_states(robot, tmp_path):
    inspection = inspect_bag(write_bag(tmp_path / "bag", robot, skip=range(1300, 1600)), robot)
    text = found(inspection, JOINTS)
    assert "warning: 1 gap, the longest 0.310 s at a period of 0.010 s" in text
    assert "about 30 messages were dropped (30.0%)" in text
    assert "0.310 s without joint states; the executor stops after 0.2 s" in text


def test_clocks_that_differ_are_told(robot, tmp_path):
    text = found(inspect_bag(write_bag(tmp_path / "a", robot, top_log_delay_ms=250)), TOP)
    assert "comes 0.250 s later after its stamp than /joint_states does" in text
    assert "is stamped 0.040 s later than it was recorded" in found(
        inspect_bag(write_bag(tmp_path / "b", robot, top_log_delay_ms=-40)), TOP
    )
    assert found(inspect_bag(write_bag(tmp_path / "c", robot, top_log_delay_ms=30)), TOP) == ""


def test_images_of_several_sizes(robot, tmp_path):
    inspection = inspect_bag(write_bag(tmp_path / "bag", robot, sizes=((48, 32), (40, 30))))
    assert "the images are not of one kind: 48x32 jpeg (5), 40x30 jpeg (5)" in found(inspection, TOP)


def test_values_that_are_not_finite(robot, tmp_path):
    def positions(ms):
        values = np.full(14, 0.1)
        values[3] = np.nan if ms == 1500 else 0.1
        return values

    inspection = inspect_bag(write_bag(tmp_path / "bag", robot, positions=positions))
    assert "error: 1 values of left_forearm_roll are not finite" in found(inspection, JOINTS)
    assert inspection.joints[JOINTS][3].lower == 0.1


def test_a_truncated_bag_is_read_as_far_as_it_is_whole(robot, tmp_path):
    rng = np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "bag", robot) as writer:
        for ms in range(1000, 1600, 10):
            writer.joint_state(ms * MS, robot.names, rng.normal(size=14))
            noise = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
            writer.compressed_image("top", ms * MS, cv2.imencode(".png", noise)[1].tobytes(), "png")
    whole = (tmp_path / "bag" / "bag.mcap").read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[: int(len(whole) * 0.6)])
    inspection = inspect_bag(cut, robot)
    assert "is cut short" in found(inspection, "file")
    assert 20 < inspection.streams[JOINTS].count < 50
    assert all(entry.jpeg for entry in thumbnails(inspection)[TOP])


def test_a_topic_of_another_type(robot, tmp_path):
    with EpisodeWriter(tmp_path / "bag", robot) as writer:
        cdr = bytes(messages.typestore().serialize_cdr(messages.string("x"), messages.STRING))
        writer.serialized(JOINTS, messages.STRING, 5 * MS, cdr)
    text = found(inspect_bag(tmp_path / "bag", robot), JOINTS)
    assert f"error: carries {messages.STRING}; it must be {messages.JOINT_STATE}" in text


def test_a_message_that_is_not_whole_is_counted(robot, tmp_path):
    with EpisodeWriter(tmp_path / "bag", robot) as writer:
        writer.joint_state(5 * MS, robot.names, np.zeros(14))
        writer.serialized(JOINTS, messages.JOINT_STATE, 6 * MS, b"\x00\x01\x00\x00" + b"\xff" * 12)
    text = found(inspect_bag(tmp_path / "bag"), JOINTS)
    assert f"error: 1 messages are no whole {messages.JOINT_STATE}" in text


def test_an_empty_bag(robot, tmp_path):
    with EpisodeWriter(tmp_path / "bag", robot):
        pass
    assert found(inspect_bag(tmp_path / "bag"), "bag") == "error: there is no message"


def test_thumbnails_are_spread_over_time(recorded):
    images = thumbnails(inspect_bag(recorded.path), count=3, width=24)
    assert sorted(images) == sorted(f"/{name}/image_raw/compressed" for name in ("left_wrist", "right_wrist", "top"))
    entries = images[TOP]
    assert [entry.time_s for entry in entries] == pytest.approx([0.0, 0.16, 0.32])
    assert image_size(entries[0].jpeg) == (24, 16)


def test_an_image_that_cannot_be_decoded_says_so(robot, tmp_path):
    with EpisodeWriter(tmp_path / "bag", robot) as writer:
        writer.compressed_image("top", 5 * MS, b"no image")
    (entry,) = thumbnails(inspect_bag(tmp_path / "bag"))[TOP]
    assert entry.jpeg == b""
    assert "cannot be decoded" in entry.problem


def test_sizes_are_read_off_the_header():
    image = np.zeros((31, 57, 3), np.uint8)
    assert image_size(encode_jpeg(image)) == (57, 31)
    assert image_size(cv2.imencode(".png", image)[1].tobytes()) == (57, 31)
    progressive = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert image_size(progressive) == (57, 31)
    assert image_size(b"BM" + bytes(60)) is None
    assert image_size(encode_jpeg(image)[:20]) is None
    assert image_size(b"\xff\xd8" + struct.pack(">HH", 0xFFE0, 16)) is None


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("left_waist", "left"),
        ("panda_right_joint1", "right"),
        ("fl_joint3", "left"),
        ("arm_r/joint_2", "right"),
        ("RightHand", "right"),
        ("joint_1", ""),
        ("elbow_flex", ""),
        ("left_to_right", ""),
    ],
)
def test_sides(name, side):
    assert side_of(name) == side


def filled(proposal: str) -> str:
    """What a person does: a number, type or name for every mark."""
    proposal = proposal.replace(f"type: {MARK}", "type: joint_trajectory")
    return proposal.replace(f"[{MARK}, {MARK}]", "[-1.0, 1.0]").replace(MARK, "2.5")


def load_text(text, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text(text)
    return load_robot(file)


@pytest.mark.slow
def test_a_proposal_from_a_simulated_recording_loads_once_filled(robot, tmp_path):
    record = pytest.importorskip("dit_policy_ros.sim.record")
    body = pytest.importorskip("dit_policy_ros.sim.body").AlohaBody("aloha_transfer_cube", robot)
    outcomes = (record.record_episode(body, seed, tmp_path / f"bag{seed}") for seed in range(8))
    bag = next(outcome.path for outcome in outcomes if outcome.strict)
    body.close()
    proposal = propose_robot(inspect_bag(bag))
    with pytest.raises(RobotError, match=f"left_waist: .* is '{MARK}'"):
        load_text(proposal, tmp_path)
    proposed = load_text(filled(proposal), tmp_path)
    assert proposed.names == robot.names
    assert {joint.name: joint.slot for joint in proposed.joints} == {joint.name: joint.slot for joint in robot.joints}
    assert proposed.controllers == robot.controllers
    assert {name: (c.topic, c.transport) for name, c in proposed.cameras.items()} == {
        name: (c.topic, c.transport) for name, c in robot.cameras.items()
    }
    assert (proposed.joint_states_topic, proposed.instruction_topic) == ("/joint_states", "/instruction")
    assert inspect_bag(bag, proposed).streams.keys() == inspect_bag(bag, robot).streams.keys()
    assert [entry for entry in inspect_bag(bag, robot).findings if entry.severity == "error"] == []


def test_a_bag_without_commands_gets_controllers_to_finish(robot, tmp_path):
    proposal = propose_robot(inspect_bag(write_bag(tmp_path / "bag", robot)))
    assert f"type: {MARK}" in proposal
    # Joints at rest tell no range.
    assert f"position: [{MARK}, {MARK}]" in proposal
    proposed = load_text(filled(proposal).replace("name: 2.5", "name: mine"), tmp_path)
    assert [controller.name for controller in proposed.controllers] == ["left_arm_controller", "right_arm_controller"]


def test_only_commanded_joints_are_proposed_and_plans_are_no_controllers(robot, tmp_path):
    left = robot.controllers[0]
    with EpisodeWriter(tmp_path / "bag", robot) as writer:
        for ms in range(100, 200, 10):
            writer.joint_state(ms * MS, (*robot.names, "wheel"), np.full(15, ms * 0.01))
            times_ns = np.array([(ms + 10) * MS])
            writer.command(left.name, ms * MS, Trajectory(left.joints, times_ns, np.zeros((1, 7))))
            plan = messages.joint_trajectory(Trajectory(robot.names, times_ns, np.zeros((1, 14))))
            cdr = bytes(messages.typestore().serialize_cdr(plan, messages.JOINT_TRAJECTORY))
            writer.serialized("/chunk", messages.JOINT_TRAJECTORY, ms * MS, cdr)
    proposal = propose_robot(inspect_bag(tmp_path / "bag"))
    proposed = load_text(filled(proposal), tmp_path)
    assert proposed.names == left.joints
    assert [controller.topic for controller in proposed.controllers] == [left.topic]
    assert "/chunk commands joints that another topic commands too" in proposal
    assert "wheel" in next(line for line in proposal.splitlines() if "not commanded" in line)


def test_raw_images_and_odd_names(robot, tmp_path):
    with EpisodeWriter(tmp_path / "bag", robot) as writer:
        writer.joint_state(5 * MS, ("joint: a", "no"), np.array([0.0, 1.0]))
        writer.joint_state(6 * MS, ("joint: a", "no"), np.array([0.5, 0.0]))
        writer.raw_image("top", 5 * MS, np.zeros((4, 6, 3), np.uint8))
    proposal = propose_robot(inspect_bag(tmp_path / "bag"))
    assert "the name does not tell the arm" in proposal
    proposed = load_text(filled(proposal), tmp_path)
    assert proposed.names == ("joint: a", "no")
    assert proposed.cameras["top"].transport == "raw"


def test_without_joint_states_nothing_is_proposed(robot, tmp_path):
    with EpisodeWriter(tmp_path / "bag", robot) as writer:
        writer.instruction(5 * MS, "hello")
    with pytest.raises(BagError, match=r"has no joint states .* Topics present: /instruction"):
        propose_robot(inspect_bag(tmp_path / "bag"))
