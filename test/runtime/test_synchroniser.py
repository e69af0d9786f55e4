from __future__ import annotations

import numpy as np
import pytest

from dit_policy_ros.robot import load_robot
from dit_policy_ros.runtime.synchroniser import Synchroniser

SPEC = load_robot("aloha")
MS = 1_000_000
WRISTS = ("left_wrist", "right_wrist")


def image(shade: int) -> np.ndarray:
    return np.full((2, 3, 3), shade, dtype=np.uint8)


def joints(value: float) -> dict[str, float]:
    return dict.fromkeys(SPEC.names, value)


@pytest.fixture
def fed() -> Synchroniser:
    synchroniser = Synchroniser(SPEC)
    for stamp in (1000, 1020, 1040):
        assert synchroniser.add_joints(stamp * MS, joints(stamp)) == ""
    synchroniser.add_image("left_wrist", 1000 * MS, image(0))
    synchroniser.add_image("left_wrist", 1010 * MS, image(1))
    synchroniser.add_image("right_wrist", 1030 * MS, image(2))
    return synchroniser


def test_joints_are_those_of_the_reference_image(fed):
    observation = fed.assemble(WRISTS, 1040 * MS).observation
    assert observation.stamp_ns == 1010 * MS == fed.stamp_ns(WRISTS)
    assert observation.positions == pytest.approx(joints(1010.0))
    assert observation.image_stamps_ns == {"left_wrist": 1010 * MS, "right_wrist": 1030 * MS}
    assert (observation.images["left_wrist"] == 1).all()
    assert (observation.images["right_wrist"] == 2).all()


def test_the_reference_camera_can_be_another():
    synchroniser = Synchroniser(SPEC, reference="right_wrist")
    synchroniser.add_joints(1000 * MS, joints(0.0))
    assert synchroniser.assemble((), 1000 * MS).reason == "no data: nothing valid on image of camera right_wrist yet"
    synchroniser.add_image("left_wrist", 1000 * MS, image(1))
    synchroniser.add_image("right_wrist", 990 * MS, image(2))
    assert synchroniser.assemble(WRISTS, 1000 * MS).observation.stamp_ns == 990 * MS


def test_without_cameras_the_joints_give_the_stamp(fed):
    observation = fed.assemble((), 1040 * MS).observation
    assert (observation.stamp_ns, observation.images) == (1040 * MS, {})


def test_images_are_decoded_only_when_needed(fed):
    decoded = []
    fed.add_image("left_wrist", 1020 * MS, lambda: decoded.append("old") or image(3))
    fed.add_image("left_wrist", 1040 * MS, lambda: decoded.append("new") or image(4))
    assert not decoded
    assert (fed.assemble(WRISTS, 1040 * MS).observation.images["left_wrist"] == 4).all()
    assert decoded == ["new"]


@pytest.mark.parametrize(
    ("cameras", "now_ms", "reason"),
    [
        (("left_wrist", "top"), 1040, "camera missing: top has sent no image on /top/image_raw yet"),
        (("tool",), 1040, "camera unknown: tool is not a camera of aloha (it has left_wrist, right_wrist, top)"),
        (WRISTS, 1520, "camera stale: left_wrist is 0.510 s old (limit 0.5 s)"),
        ((), 1250, "joint states stale: 0.210 s old (limit 0.2 s)"),
    ],
)
def test_what_is_missing_is_named(fed, cameras, now_ms, reason):
    assembly = fed.assemble(cameras, now_ms * MS)
    assert assembly.observation is None
    assert assembly.reason == reason


def test_joints_are_not_extrapolated(fed):
    fed.add_image("left_wrist", 1100 * MS, image(1))
    assert fed.assemble(WRISTS, 1100 * MS).reason.startswith("joint states missing")


def test_nothing_yet():
    synchroniser = Synchroniser(SPEC)
    assert synchroniser.stamp_ns(WRISTS) is None
    assert synchroniser.assemble((), 0).reason == "no data: nothing valid on /joint_states yet"


def test_bad_joint_states_are_refused_and_named(fed):
    assert "left_waist is not finite" in fed.add_joints(1060 * MS, joints(0.0) | {"left_waist": float("nan")})
    reason = fed.add_joints(1060 * MS, {"left_waist": 0.0})
    assert reason.startswith("Missing joint left_shoulder")
    assert fed.last_rejection == reason
    assert fed.assemble((), 1060 * MS).observation.stamp_ns == 1040 * MS


def test_clear_forgets_all(fed):
    fed.clear()
    assert fed.stamp_ns(WRISTS) is None
    assert fed.stamp_ns(()) is None
