"""Joints to poses and back, on the shipped robot's own model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dit_policy_ros.errors import RobotError
from dit_policy_ros.robot import load_robot
from dit_policy_ros.sim.pose_chunks import PoseChunks
from dit_policy_ros.types import ActionChunk

ROBOT = load_robot("aloha")
HOME = dict(ROBOT.home)
STEP_NS = 20_000_000


@pytest.fixture(scope="module")
def poses() -> PoseChunks:
    return PoseChunks(ROBOT)


def sway(count: int = 8) -> ActionChunk:
    t = np.arange(count)[:, None] * 0.02
    arms = np.array([0.0 if "gripper" in name else 0.3 for name in ROBOT.names])
    actions = np.array(list(HOME.values())) + arms * np.sin(2.0 * t + np.arange(len(ROBOT.names)))
    return ActionChunk(ROBOT.names, 10**9, STEP_NS, actions, 1, 2, 3, 4)


def test_every_pose_has_nine_channels_and_grippers_are_kept(poses: PoseChunks):
    assert poses.kept == ("left_gripper", "right_gripper")
    state = poses.state(HOME)
    assert len(state) == 2 * 9 + 2
    assert state["left_eef_pos_x"] == pytest.approx(-state["right_eef_pos_x"], abs=1e-3), "the arms face each other"


def test_joints_to_poses_to_joints_leads_to_the_same_poses(poses: PoseChunks):
    chunk = sway()
    wanted = poses.to_poses(chunk)
    back = poses.to_joints(wanted, dict(zip(ROBOT.names, chunk.actions[0], strict=True)))
    assert back.names == ROBOT.names
    assert (back.start_ns, back.step_ns, back.epoch, back.committed) == (10**9, STEP_NS, 3, 4)
    np.testing.assert_allclose(poses.to_poses(back).actions, wanted.actions, atol=1e-3)
    assert np.abs(np.diff(back.actions, axis=0)).max() < 0.05, "the solutions stay on one branch"
    grippers = [ROBOT.names.index(name) for name in poses.kept]
    np.testing.assert_array_equal(back.actions[:, grippers], chunk.actions[:, grippers])


def test_swapped_arms_swap_the_solution(poses: PoseChunks):
    wanted = poses.to_poses(sway(2))
    moved = wanted.actions.copy()
    moved[:, wanted.names.index("left_eef_pos_z")] += 0.03
    still = poses.to_joints(wanted, HOME).actions
    lifted = poses.to_joints(replace(wanted, actions=moved), HOME).actions
    change = np.abs(lifted - still).max(axis=0)
    left = np.array([joint.arm == "left" for joint in ROBOT.joints])
    assert change[left].max() > 0.01
    assert change[~left].max() < 1e-3


def test_what_cannot_be_done_is_named(poses: PoseChunks):
    wanted = poses.to_poses(sway(2))
    far = wanted.actions.copy()
    far[:, wanted.names.index("right_eef_pos_x")] += 3.0
    with pytest.raises(RobotError, match="right arm cannot reach"):
        poses.to_joints(replace(wanted, actions=far), HOME)
    with pytest.raises(RobotError, match="lacks left_eef_pos_x"):
        poses.to_joints(replace(wanted, names=("nothing", *wanted.names[1:])), HOME)
    with pytest.raises(RobotError, match="not finite"):
        poses.to_joints(replace(wanted, actions=far * np.nan), HOME)
    with pytest.raises(RobotError, match="has no kinematics"):
        PoseChunks(replace(ROBOT, kinematics=None))
