"""A robot that is felt by the poses of its hands: executor and recorder, live, and what the bag then says."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from geometry_msgs.msg import PoseStamped
from harness import Repeat, Stage, joint_state, wait_until
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.actions.rotation import matrix_from_quaternion
from dit_policy_ros.data.bag_reader import open_episode
from dit_policy_ros.resources import find_config
from dit_policy_ros.robot import load_robot, parse_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.chunks import chunk_to_message
from dit_policy_ros.ros.conversions.stamps import ns_to_time
from dit_policy_ros.ros.executor_node import ExecutorNode
from dit_policy_ros.ros.recorder_node import RecorderNode
from dit_policy_ros.ros.topics import recorded_topics
from dit_policy_ros.types import ActionChunk

pytestmark = pytest.mark.ros
POSES = {"left": "/left/pose", "right": "/right/pose"}
PLACES = {"left": (0.3, 0.1, 0.4), "right": (0.5, -0.2, 0.3)}
TURNS = {"left": (0.0, 0.6, 0.0, 0.8), "right": (0.5, 0.5, -0.5, 0.5)}
GRIPPERS = {"right_gripper": 0.25, "left_gripper": 0.75}
STEP_NS = 20_000_000


@pytest.fixture
def posed(tmp_path) -> str:
    """Returns the path of a robot description whose arms have a pose topic each."""
    description = yaml.safe_load(find_config("robots", "dual_franka_poses").read_text(encoding="utf-8"))
    description["poses"] = POSES
    description["joint_states"]["max_age_s"] = 2.0
    path = tmp_path / "posed.yaml"
    path.write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    return str(path)


def expected() -> dict[str, float]:
    """Channels of the two poses and the grippers."""
    values = dict(GRIPPERS)
    for arm in POSES:
        columns = matrix_from_quaternion(np.array(TURNS[arm]))[:, :2].T.reshape(-1)
        values |= {f"{arm}_eef_pos_{axis}": x for axis, x in zip("xyz", PLACES[arm], strict=True)}
        values |= {f"{arm}_eef_angle_{k}": x for k, x in enumerate(columns.tolist())}
    return values


class Hands:
    """Publishes both poses and the grippers, each at stamps of its own."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.publishers = {arm: stage.speak(PoseStamped, topic) for arm, topic in POSES.items()}
        self.grippers = stage.speak(JointState, "/joint_states")
        self.turns = dict(TURNS)
        self.silent: set[str] = set()

    def sense(self) -> None:
        now_ns = self.stage.now_ns()
        self.grippers.publish(joint_state(now_ns, GRIPPERS))
        for lag, (arm, publisher) in enumerate(self.publishers.items(), start=1):
            message = PoseStamped()
            message.header.stamp = ns_to_time(now_ns - lag * 3_000_000)
            place, turn = message.pose.position, message.pose.orientation
            place.x, place.y, place.z = PLACES[arm]
            turn.x, turn.y, turn.z, turn.w = self.turns[arm]
            if arm not in self.silent:
                publisher.publish(message)


def test_poses_are_felt_live_as_a_bag_of_them_reads(stage: Stage, posed, tmp_path) -> None:
    spec = load_robot(posed)
    executor = stage.activate(ExecutorNode, "executor_node", {"robot": posed})
    options = {"robot": posed, "directory": str(tmp_path / "bags")}
    recorder = stage.activate(RecorderNode, "recorder_node", options)
    hands, instruction = Hands(stage), stage.speak(String, "/instruction", qos.LATCHED)
    instruction.publish(String(data="turn the cup"))

    def felt() -> dict[str, float]:
        return dict((executor._supervisor._sample or (0, {}))[1])

    with Repeat(hands.sense):
        wait_until(lambda: len(felt()) == len(spec.names), "a sample of all channels")
        assert felt() == pytest.approx(expected())
        wait_until(lambda: recorder.measure()["messages"] > 60, "messages to be written")
    stage.change("recorder_node", "deactivate")
    (bag,) = (tmp_path / "bags").iterdir()
    episode = open_episode(bag, spec)
    assert all(episode.bag.counts[topic] > 5 for topic in (*POSES.values(), "/joint_states"))
    values = [expected()[name] for name in spec.names]
    np.testing.assert_allclose(episode.joints.positions, np.tile(values, (len(episode.joints.times_ns), 1)))
    assert episode.instruction == "turn the cup"


def test_arms_move_on_poses_and_stop_when_one_falls_silent(stage: Stage, posed) -> None:
    spec = load_robot(posed)
    stage.activate(ExecutorNode, "executor_node", {"robot": posed})
    status = stage.hear(String, "/executor_node/status", qos.STATUS)
    commands = [stage.hear(JointTrajectory, controller.topic, qos.COMMANDS_IN) for controller in spec.controllers]
    chunks, hands = stage.speak(JointTrajectory, "/chunk"), Hands(stage)
    still = np.array([expected()[name] for name in spec.names])

    def moving() -> bool:
        now_ns = stage.now_ns()
        lift = np.array([0.02 if name.endswith("pos_z") else 0.0 for name in spec.names])
        actions = still + np.linspace(0.0, 1.0, 30)[:, None] * lift
        chunks.publish(chunk_to_message(ActionChunk(spec.names, now_ns, STEP_NS, actions, now_ns, now_ns, 1)))
        return all(commands)

    with Repeat(hands.sense):
        wait_until(moving, "both arms to be commanded")
        hands.silent = {"right"}
        stale = "joint states stale: none on /right/pose for "
        wait_until(lambda: moving() and any(stale in message.data for message in status), "the missing pose", 60.0)


def test_a_quaternion_of_zeros_is_refused_and_named(stage: Stage, posed) -> None:
    executor = stage.activate(ExecutorNode, "executor_node", {"robot": posed})
    hands = Hands(stage)
    hands.turns["left"] = (0.0, 0.0, 0.0, 0.0)
    with Repeat(hands.sense):
        told = wait_until(lambda: executor.problems.present.get("/left/pose"), "the pose to be refused")
    assert "a pose has a quaternion of zeros" in told


def test_depth_is_recorded_where_the_robot_has_it() -> None:
    description = yaml.safe_load(find_config("robots", "aloha").read_text(encoding="utf-8"))
    assert not [topic for topic in recorded_topics(parse_robot(description, "aloha")) if topic.type is Image]
    description["cameras"]["top"]["depth"] = "/top/depth"
    (topic,) = [topic for topic in recorded_topics(parse_robot(description, "deep")) if topic.type is Image]
    assert topic.name == "/top/depth"
