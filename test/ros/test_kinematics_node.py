"""The translator between a policy of poses and controllers of joints, as a node."""

from __future__ import annotations

import numpy as np
import pytest
from harness import ROBOT, STEP_NS, Repeat, Stage, joint_state, wait_until
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.robot import load_robot
from dit_policy_ros.ros import qos
from dit_policy_ros.ros.conversions.chunks import chunk_to_message, message_to_chunk
from dit_policy_ros.ros.kinematics_node import KinematicsNode
from dit_policy_ros.types import ActionChunk

pytestmark = pytest.mark.ros
HOME = dict(ROBOT.home)


def test_states_plans_and_chunks_are_translated(stage: Stage) -> None:
    stage.activate(KinematicsNode, "kinematics_node")
    states = stage.hear(JointState, "/pose_states", qos.SENSOR)
    plans, chunks = stage.hear(JointTrajectory, "/pose_plan"), stage.hear(JointTrajectory, "/chunk")
    joints = stage.speak(JointState, "/joint_states")
    plan, wishes = stage.speak(JointTrajectory, "/plan"), stage.speak(JointTrajectory, "/pose_chunk")
    moving = np.tile(list(HOME.values()), (4, 1))
    moving[:, 0] += 0.02 * np.arange(4)
    chunk = ActionChunk(ROBOT.names, stage.now_ns(), STEP_NS, moving, 7, 8, 9, 2)
    with Repeat(lambda: joints.publish(joint_state(stage.now_ns(), HOME))):
        wait_until(lambda: states, "poses of the hands")
        wait_until(lambda: plan.publish(chunk_to_message(chunk)) or plans, "the plan as poses")
        wait_until(lambda: wishes.publish(plans[-1]) or chunks, "the chunk as joints")
    assert set(states[-1].name) == set(load_robot("aloha_poses").names)
    found = message_to_chunk(chunks[-1])
    assert found.names == ROBOT.names
    assert (found.start_ns, found.observation_ns, found.context_ns, found.epoch) == (chunk.start_ns, 7, 8, 9)
    np.testing.assert_allclose(found.actions, moving, atol=5e-3)


def test_a_pose_out_of_reach_is_a_reason_and_no_chunk(stage: Stage) -> None:
    node = stage.activate(KinematicsNode, "kinematics_node")
    names = load_robot("aloha_poses").names
    chunks = stage.hear(JointTrajectory, "/chunk")
    joints = stage.speak(JointState, "/joint_states")
    wishes = stage.speak(JointTrajectory, "/pose_chunk")
    rows = np.tile([5.0 if name.endswith("pos_x") else float(name[-1] in "04") for name in names], (2, 1))
    message = chunk_to_message(ActionChunk(names, stage.now_ns(), STEP_NS, rows))

    def told() -> bool:
        joints.publish(joint_state(stage.now_ns(), HOME))
        wishes.publish(message)
        return "cannot reach" in node.problems.present.get("pose_chunk", "")

    wait_until(told, "the reason")
    assert chunks == []
