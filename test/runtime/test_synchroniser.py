from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_policy_ros.robot import load_robot
from dit_policy_ros.runtime.ring import ImageRing
from dit_policy_ros.runtime.synchroniser import History, Synchroniser, history_of

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


def with_cameras(**changes):
    """The robot with other rules for its cameras."""
    cameras = {name: replace(camera, **changes.get(name, {})) for name, camera in SPEC.cameras.items()}
    return replace(SPEC, cameras=cameras)


def feed(synchroniser, camera, *stamps_ms):
    for stamp in stamps_ms:
        synchroniser.add_image(camera, stamp * MS, image(stamp % 256))


@pytest.mark.parametrize(("pick", "picked"), [("newest", 1045), ("nearest", 1015)])
def test_the_image_nearest_to_the_reference_can_be_taken(pick, picked):
    synchroniser = Synchroniser(with_cameras(right_wrist={"pick": pick}))
    synchroniser.add_joints(1010 * MS, joints(0.0))
    feed(synchroniser, "right_wrist", 985, 1015, 1045)
    feed(synchroniser, "left_wrist", 1010)
    observation = synchroniser.assemble(WRISTS, 1050 * MS).observation
    assert observation.stamp_ns == 1010 * MS
    assert observation.image_stamps_ns["right_wrist"] == picked * MS
    assert (observation.images["right_wrist"] == picked % 256).all()


def test_images_too_far_apart_are_refused_or_left_out():
    rule = {"right_wrist": {"tolerance_s": 0.03}}
    for optional in (False, True):
        rule["right_wrist"]["optional"] = optional
        synchroniser = Synchroniser(with_cameras(**rule))
        synchroniser.add_joints(1010 * MS, joints(0.0))
        feed(synchroniser, "left_wrist", 1010)
        feed(synchroniser, "right_wrist", 975)
        assembly = synchroniser.assemble(WRISTS, 1020 * MS)
        if optional:
            assert list(assembly.observation.images) == ["left_wrist"]
        else:
            assert assembly.reason == "camera apart: right_wrist is 0.035 s off the reference (limit 0.03 s)"
        feed(synchroniser, "right_wrist", 985)
        assert set(synchroniser.assemble(WRISTS, 1020 * MS).observation.images) == set(WRISTS)


def test_without_its_first_optional_camera_the_next_is_the_reference():
    synchroniser = Synchroniser(with_cameras(left_wrist={"optional": True}))
    synchroniser.add_joints(1010 * MS, joints(0.0))
    feed(synchroniser, "right_wrist", 1005)
    observation = synchroniser.assemble(WRISTS, 1020 * MS).observation
    assert (observation.stamp_ns, list(observation.images)) == (1005 * MS, ["right_wrist"])
    everything = Synchroniser(with_cameras(left_wrist={"optional": True}, right_wrist={"optional": True}))
    everything.add_joints(1010 * MS, joints(0.0))
    assert everything.assemble(WRISTS, 1020 * MS).observation.images == {}


def test_older_frames_are_those_of_their_instants_or_absent():
    synchroniser = Synchroniser(SPEC, history=History(frames=3, step_s=0.04))
    synchroniser.add_joints(1100 * MS, joints(0.0))
    feed(synchroniser, "left_wrist", 1018, 1033, 1062, 1070, 1100)
    feed(synchroniser, "right_wrist", 1061, 1100)
    earlier = synchroniser.assemble(WRISTS, 1110 * MS).observation.earlier_images
    shades = [{camera: int(frame[camera][0, 0, 0]) for camera in frame} for frame in earlier]
    assert shades == [{"left_wrist": 1018 % 256}, {"left_wrist": 1062 % 256, "right_wrist": 1061 % 256}]
    single = Synchroniser(SPEC)
    single.add_joints(1100 * MS, joints(0.0))
    feed(single, "left_wrist", 1062, 1100)
    assert single.assemble(("left_wrist",), 1110 * MS).observation.earlier_images == ()


def test_a_policy_says_how_many_frames_it_needs():
    two = SimpleNamespace(frames=2, step_ns=40 * MS)
    assert history_of(two) == History(2, 0.04)
    assert history_of(SimpleNamespace(step_ns=20 * MS)).frames == 1


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40))
def test_disorder_and_duplicates_are_dropped_and_counted(stamps_ms):
    ring, newest, dropped = ImageRing(64), -1, 0
    for stamp in stamps_ms:
        ring.add(stamp * MS, image(0))
        dropped += stamp <= newest
        newest = max(newest, stamp)
        assert ring.newest_ns == newest * MS
    assert ring.duplicates + ring.out_of_order == dropped
    assert ring.jumps == 0


def test_a_clock_that_jumped_back_starts_a_camera_anew(fed):
    feed(fed, "left_wrist", 100)
    assert fed.stamp_ns(WRISTS) == 100 * MS
    feed(fed, "left_wrist", 90, 100)
    counts = fed.counts()
    assert counts["jumps images of left_wrist"] == 1
    assert counts["out of order images of left_wrist"] == 1
    assert counts["duplicates images of left_wrist"] == 1
    assert "jumps images of right_wrist" not in counts


def test_stamps_of_the_future_are_named_and_forgotten(fed):
    feed(fed, "left_wrist", 5000)
    reason = fed.assemble(WRISTS, 1040 * MS).reason
    assert reason == "camera future: left_wrist is 3.960 s ahead of the clock (limit 0.5 s)"
    feed(fed, "left_wrist", 1035)
    assert fed.assemble(WRISTS, 1040 * MS).observation.stamp_ns == 1035 * MS
    fed.add_joints(4000 * MS, joints(0.0))
    assert fed.assemble(WRISTS, 1040 * MS).reason.startswith("joint states future: 2.960 s ahead")
    fed.add_joints(1045 * MS, joints(1.0))
    assert fed.assemble((), 1050 * MS).observation.stamp_ns == 1045 * MS
