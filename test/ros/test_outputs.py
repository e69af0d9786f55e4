"""Every type of output: what its messages say, and that a motion and its stop really go out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from executor_stage import PATIENT, Robot
from geometry_msgs.msg import PoseStamped
from harness import HOME, ROBOT, Repeat, Stage, wait_until
from hypothesis import given
from hypothesis import strategies as st
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Float64MultiArray

from dit_policy_ros.actions.rotation import matrix_from_rotation_vector, rot6d_from_matrix
from dit_policy_ros.controllers import CONTROLLER_TYPES, Controller
from dit_policy_ros.errors import ConfigError
from dit_policy_ros.resources import share_directory
from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.stamps import time_to_ns
from dit_policy_ros.ros.executor_node import ExecutorNode
from dit_policy_ros.ros.outputs.choice import OUTPUTS, make_output
from dit_policy_ros.ros.outputs.grippers import GripperCommandOutput, ParallelGripperCommandOutput
from dit_policy_ros.ros.outputs.joints import JointTrajectoryOutput, accelerations
from dit_policy_ros.ros.outputs.lines import Lines
from dit_policy_ros.ros.outputs.output import Moment
from dit_policy_ros.ros.outputs.poses import PoseOutput, PoseTrajectoryOutput, TwistOutput, twist_between
from dit_policy_ros.types import Trajectory

pytestmark = pytest.mark.ros
MS = 1_000_000
NOW = 5_000 * MS


class Deaf:
    """Stands for a node where only the encoding is looked at."""

    def publish_on(self, *_: object) -> None:
        return None


def line(kind: type, **options):
    return kind(Deaf(), Controller("mine", "any", "/mine", ("a", "b"), **options), "/mine")


def trajectory(count: int = 4) -> Trajectory:
    times_ns = NOW + 20 * MS * (1 + np.arange(count))
    velocities = np.linspace(1.0, 0.0, count)[:, None] * np.array([1.0, -2.0])
    return Trajectory(("a", "b"), times_ns, np.cumsum(velocities, axis=0), velocities)


def moment(reference=None, new: Trajectory | None = None, moves: bool = True) -> Moment:
    return Moment(NOW, 10 * MS, new, reference or (lambda time_ns: None), moves)


def pose(position, turn) -> np.ndarray:
    return np.concatenate([position, rot6d_from_matrix(matrix_from_rotation_vector(np.asarray(turn, dtype=float)))])


def test_there_is_an_output_for_every_type_and_no_other():
    assert OUTPUTS.keys() == CONTROLLER_TYPES.keys()


@pytest.mark.parametrize("with_accelerations", [False, True])
def test_trajectories_share_the_stamp_and_end_at_rest(with_accelerations: bool):
    message = line(JointTrajectoryOutput, accelerations=with_accelerations).encode(moment(new=trajectory()))
    assert time_to_ns(message.header.stamp) == NOW
    assert list(message.points[-1].velocities) == [0.0, 0.0]
    assert [len(point.accelerations) for point in message.points] == [2 * with_accelerations] * 4
    assert line(JointTrajectoryOutput).encode(moment()) is None


class Line:
    """Notes what it is told."""

    def __init__(self, joints: tuple[str, ...], fails: bool = False) -> None:
        self.controller = Controller("mine", "joint_trajectory", "/mine", joints)
        self.fails = fails
        self.sent: list = []

    def encode(self, moment: Moment):
        if self.fails:
            raise ZeroDivisionError("told to")
        return moment.trajectory

    def send(self, encoded) -> None:
        self.sent.append(encoded)


def lines(*outputs: Line) -> Lines:
    made = object.__new__(Lines)
    made._outputs, made._columns = list(outputs), [[0]] * len(outputs)
    return made


def test_no_arm_is_told_half_a_command():
    first, second = Line(("a",)), Line(("b",), fails=True)
    with pytest.raises(ZeroDivisionError):
        lines(first, second).command(NOW, MS, (trajectory(), trajectory()), lambda t: None, True, lambda joints: False)
    assert first.sent == []


def test_a_muted_controller_is_told_nothing():
    first, second = Line(("a",)), Line(("b",))
    told = (trajectory(), trajectory())
    lines(first, second).command(NOW, MS, told, lambda t: None, True, lambda joints: joints == ("a",))
    assert (first.sent, second.sent) == ([], [told[1]])


def test_accelerations_are_the_slope_of_the_velocities_and_end_in_none():
    found = accelerations(trajectory())
    np.testing.assert_allclose(found[:-1], np.tile([-1.0, 2.0], (3, 1)) / 3 / 0.02)
    np.testing.assert_array_equal(found[-1], 0.0)


def test_a_stream_speaks_in_every_period_of_a_motion_and_once_after():
    output = line(PoseOutput, frame_id="base")

    def reference(time_ns: int) -> np.ndarray:
        return pose([0.1, 0.2, 0.3], [0.0, 0.0, 0.0])

    assert output.encode(moment(reference, moves=False)) is None
    assert output.encode(moment(moves=True)) is None, "there is no reference yet"
    said = [output.encode(moment(reference, moves=moves)) is not None for moves in (True, True, False, False)]
    assert said == [True, True, True, False]


def test_poses_are_of_unit_length_and_in_their_frame():
    message = line(PoseOutput, frame_id="left_base").encode(moment(lambda t: pose([1, 2, 3], [0.3, -0.2, 0.9])))
    q = message.pose.orientation
    assert np.hypot(np.hypot(q.x, q.y), np.hypot(q.z, q.w)) == pytest.approx(1.0)
    assert (message.pose.position.x, message.pose.position.z, message.header.frame_id) == (1.0, 3.0, "left_base")


@given(st.lists(st.floats(-1.0, 1.0), min_size=6, max_size=6))
def test_a_twist_leads_from_one_pose_to_the_next(values):
    linear, angular = np.array(values[:3]), np.array(values[3:])
    start = np.eye(3)
    there = matrix_from_rotation_vector(angular * 0.01) @ start
    here = np.concatenate([np.zeros(3), rot6d_from_matrix(start)])
    found = twist_between(here, np.concatenate([linear * 0.01, rot6d_from_matrix(there)]), 0.01)
    np.testing.assert_allclose(found, [linear, angular], atol=1e-6)


def test_a_twist_at_rest_is_zero_and_pose_trajectories_keep_their_instants():
    twist = line(TwistOutput, frame_id="base").encode(moment(lambda t: pose([1, 2, 3], [0.3, -0.2, 0.9])))
    assert twist.twist.linear.x == pytest.approx(0.0)
    assert twist.twist.angular.z == pytest.approx(0.0)
    rows = np.array([pose([k, 0, 0], [0, 0, 0.1 * k]) for k in range(3)])
    whole = Trajectory(tuple("abcdefghi"), NOW + 20 * MS * (1 + np.arange(3)), rows)
    message = line(PoseTrajectoryOutput, frame_id="base").encode(moment(new=whole))
    assert [time_to_ns(point.time_from_start) for point in message.points] == [20 * MS, 40 * MS, 60 * MS]
    assert message.points[2].transforms[0].translation.x == 2.0


@pytest.mark.parametrize("kind", [GripperCommandOutput, ParallelGripperCommandOutput])
def test_a_gripper_gets_a_goal_only_when_its_target_moved(kind):
    output = object.__new__(kind)
    output.controller = Controller("grip", "any", "/grip", ("a",), max_effort=12.0, tolerance=0.05)
    output.message_type = SimpleNamespace(Goal=lambda: SimpleNamespace(command=SimpleNamespace()))
    output._last = None

    def goal(position: float):
        one = Trajectory(("a",), np.array([NOW]), np.array([[position]]), np.zeros((1, 1)))
        return output.encode(moment(new=one))

    position, effort = vars(goal(0.5).command)["position"], vars(goal(0.9).command)
    assert position in (0.5, [0.5])
    assert 12.0 in effort.values() or [12.0] in effort.values()
    assert goal(0.92) is None
    assert output.encode(moment()) is None


@pytest.mark.parametrize("kind", ["joint_jog", "gripper_command"])
def test_a_type_without_its_messages_is_refused_with_what_to_install(stage: Stage, kind: str):
    pytest.importorskip("rclpy")
    try:
        import control_msgs  # noqa: F401
    except ImportError:
        node = LifecycleNode("lacking", context=stage.context, use_global_arguments=False)
        with pytest.raises(ConfigError, match="needs control_msgs, which is not installed"):
            make_output(node, Controller("mine", kind, "/mine", ("a",)))
        node.destroy_node()


@pytest.fixture
def forward_robot(tmp_path) -> str:
    robot = yaml.safe_load(Path(PATIENT).read_text())
    robot["controllers"]["left_arm_controller"]["type"] = "forward_command"
    path = tmp_path / "forward.yaml"
    path.write_text(yaml.safe_dump(robot, sort_keys=False))
    return str(path)


def test_forward_commands_stream_to_rest_even_while_deactivating(stage: Stage, forward_robot: str) -> None:
    topic = "/left_arm_controller/commands"
    values = stage.hear(Float64MultiArray, topic, qos.COMMANDS_IN)
    robot = Robot(stage, {"robot": forward_robot, "rate_hz": 50.0}, topics=(topic,))
    with Repeat(robot.sense):
        robot.move()
        stage.change("executor_node", "deactivate")
    spec = load_robot(forward_robot)
    wait_until(lambda: len(values) > 5, "values")
    rows = np.array([message.data for message in values])
    order = [spec.names.index(joint) for joint in spec.controllers[0].joints]
    np.testing.assert_allclose(rows[0], np.array([HOME[name] for name in spec.names])[order], atol=0.05)
    last = [np.abs(rows[k] - rows[k - 1]).max() for k in (-1, -2, -3)]
    assert last[0] < 0.01, "the last steps lead to rest"
    assert (np.abs(rows) < 3.2).all()


def test_pose_controllers_hear_poses(stage: Stage, tmp_path) -> None:
    robot = yaml.safe_load((share_directory() / "config" / "robots" / "dual_franka_poses.yaml").read_text())
    for arm in ("left", "right"):
        joints = list(robot["arms"][arm])
        robot["controllers"].pop(f"{arm}_pose_controller", None)
        robot["controllers"].pop(f"{arm}_gripper_controller", None)
        robot["controllers"][f"{arm}_pose"] = {"type": "pose", "joints": joints[:9], "frame_id": f"{arm}_base"}
        robot["controllers"][f"{arm}_hand"] = {"type": "forward_command", "joints": joints[9:]}
    path = tmp_path / "poses.yaml"
    path.write_text(yaml.safe_dump(robot, sort_keys=False))
    node = stage.activate(ExecutorNode, "executor_node", {"robot": str(path)})
    wanted = {"/left_pose/target_frame", "/executor_node/preview_left"}
    wait_until(lambda: wanted <= stage.publishers_of("executor_node"), "the publishers")
    assert PoseStamped in {publisher.msg_type for publisher in node._publishers_made}
    assert dataclasses.is_dataclass(ROBOT)
