from __future__ import annotations

import array

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image, JointState
from trajectory_msgs.msg import JointTrajectory

from dit_policy_ros.errors import RobotError
from dit_policy_ros.ros.conversions import contexts, images
from dit_policy_ros.ros.conversions.chunks import chunk_to_message, message_to_chunk
from dit_policy_ros.ros.conversions.joints import JointSample, joint_state_to_sample, sample_to_joint_state
from dit_policy_ros.ros.conversions.stamps import ns_to_duration, ns_to_time, time_to_ns
from dit_policy_ros.ros.conversions.trajectories import (
    MAX_POINTS,
    message_to_trajectory,
    trajectory_fields,
    trajectory_to_message,
)
from dit_policy_ros.types import ActionChunk, Context, Trajectory

pytestmark = pytest.mark.ros

STAMPS = st.integers(0, 2**31 * 10**9 - 1)
FLOATS = st.floats(-1e6, 1e6)


def sent(message):
    """The message as it comes out at the other end."""
    return deserialize_message(serialize_message(message), type(message))


@given(STAMPS)
def test_stamps_come_back(stamp_ns: int) -> None:
    assert time_to_ns(ns_to_time(stamp_ns)) == stamp_ns
    assert time_to_ns(ns_to_duration(stamp_ns)) == stamp_ns


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))), STAMPS)
def test_raw_images_come_back(rgb: np.ndarray, stamp_ns: int) -> None:
    message = sent(images.rgb_to_image(rgb, stamp_ns, "top"))
    assert (images.message_to_rgb(message) == rgb).all()
    assert (time_to_ns(message.header.stamp), message.header.frame_id) == (stamp_ns, "top")


def test_compressed_images_come_back_nearly() -> None:
    ramp = np.broadcast_to(np.arange(0, 240, 5, dtype=np.uint8)[:, None, None], (48, 64, 3)).copy()
    message = sent(images.rgb_to_compressed(ramp, 5, "top"))
    assert np.abs(images.message_to_rgb(message).astype(int) - ramp).max() <= 3


@pytest.mark.parametrize("big_endian", [0, 1])
def test_padding_and_byte_order_of_depth(big_endian: int) -> None:
    depth = np.array([[1000, 2], [65535, 0]], dtype=">u2" if big_endian else "<u2")
    rows = np.concatenate([depth.view(np.uint8).reshape(2, 4), np.full((2, 3), 7, np.uint8)], axis=1)
    message = Image(height=2, width=2, encoding="16UC1", step=7, is_bigendian=big_endian)
    message.data = array.array("B", rows.tobytes())
    expected = np.array([[1.0, 0.002], [65.535, np.nan]], dtype=np.float32)
    np.testing.assert_allclose(images.message_to_depth(message), expected)


def test_colours_in_another_order_and_padding() -> None:
    message = Image(height=1, width=1, encoding="bgra8", step=6, data=array.array("B", [3, 2, 1, 255, 0, 0]))
    assert images.message_to_rgb(message).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize(
    "message",
    [
        Image(height=1, width=1, encoding="yuv422", step=3, data=array.array("B", bytes(3))),
        Image(height=2, width=1, encoding="rgb8", step=3, data=array.array("B", bytes(5))),
        Image(height=1, width=2, encoding="rgb8", step=3, data=array.array("B", bytes(6))),
        Image(encoding="rgb8"),
        CompressedImage(format="jpeg"),
        CompressedImage(format="jpeg", data=array.array("B", b"nothing")),
    ],
)
def test_images_that_make_no_sense_are_refused(message) -> None:
    with pytest.raises(RobotError):
        images.message_to_rgb(message)


@given(st.dictionaries(st.text(min_size=1, max_size=5).filter(lambda t: "\x00" not in t), FLOATS, max_size=6), STAMPS)
def test_joint_states_come_back_by_name_in_any_order(positions: dict[str, float], stamp_ns: int) -> None:
    velocities = {name: -value for name, value in positions.items()}
    message = sent(sample_to_joint_state(JointSample(stamp_ns, positions, velocities)))
    names = sorted(positions)
    assert joint_state_to_sample(message, names) == JointSample(stamp_ns, positions, velocities)
    assert joint_state_to_sample(message, names[1:]).positions.keys() == set(names[1:])


def test_a_velocity_that_is_not_measured_is_absent() -> None:
    message = JointState(name=["a", "b"], position=[0.0, 1.0], velocity=[float("nan"), 2.0])
    assert joint_state_to_sample(message, ("a", "b")).velocities == {"b": 2.0}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (JointState(name=["a", "a"], position=[0.0, 1.0]), "name a twice"),
        (JointState(name=["a", "b"], position=[0.0]), "1 positions for 2 names"),
        (JointState(name=["a"]), "0 positions for 1 names"),
        (JointState(name=["a", "b"], position=[0.0, 0.0], velocity=[0.0]), "1 velocities for 2 names"),
    ],
)
def test_joint_states_that_contradict_themselves_are_refused(message: JointState, text: str) -> None:
    with pytest.raises(RobotError, match=text):
        joint_state_to_sample(message, ("a", "b"))


@st.composite
def chunks(draw: st.DrawFn) -> ActionChunk:
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4, unique=True))
    actions = draw(hnp.arrays(np.float64, (draw(st.integers(2, 6)), len(names)), elements=FLOATS))
    return ActionChunk(
        tuple(names),
        draw(st.integers(0, 2**30 * 10**9)),
        draw(st.integers(1, 10**9)),
        actions,
        draw(STAMPS),
        draw(STAMPS),
        draw(st.integers(0, 10**15)),
        draw(st.integers(0, len(actions))),
    )


@given(chunks())
def test_chunks_come_back(chunk: ActionChunk) -> None:
    back = message_to_chunk(sent(chunk_to_message(chunk)))
    assert (back.actions == chunk.actions).all()
    for field in ("names", "start_ns", "step_ns", "observation_ns", "context_ns", "epoch", "committed"):
        assert getattr(back, field) == getattr(chunk, field)


def test_chunks_that_cannot_travel_are_refused() -> None:
    chunk = ActionChunk(("a",), 0, 5, np.zeros((3, 1)))
    with pytest.raises(RobotError, match="at least two"):
        chunk_to_message(ActionChunk(("a",), 0, 5, np.zeros((1, 1))))
    message = chunk_to_message(chunk)
    message.points[1].time_from_start = ns_to_duration(7)
    with pytest.raises(RobotError, match="equally spaced"):
        message_to_chunk(message)
    message = chunk_to_message(chunk)
    message.header.frame_id = "base_link"
    with pytest.raises(RobotError, match="must read"):
        message_to_chunk(message)
    message = chunk_to_message(chunk)
    message.points[2].positions = array.array("d", [float("nan")])
    with pytest.raises(RobotError, match="not finite"):
        message_to_chunk(message)
    with pytest.raises(RobotError, match="claims 4"):
        message_to_chunk(chunk_to_message(ActionChunk(("a",), 0, 5, np.zeros((3, 1)), committed=4)))


def test_trajectories_come_back_and_keep_their_instants_under_another_stamp() -> None:
    times_ns = np.array([30, 50, 90], dtype=np.int64)
    trajectory = Trajectory(("a", "b"), times_ns, np.arange(6.0).reshape(3, 2), np.ones((3, 2)))
    message = sent(trajectory_to_message(trajectory, stamp_ns=10))
    back = message_to_trajectory(message)
    assert back.times_ns.tolist() == [30, 50, 90]
    assert (back.positions == trajectory.positions).all()
    assert (back.velocities == trajectory.velocities).all()
    fields = trajectory_fields(message)
    assert (fields.stamp_ns, fields.offsets_ns.tolist()) == (10, [20, 40, 80])
    assert (
        message_to_trajectory(trajectory_to_message(Trajectory(("a",), times_ns, np.zeros((3, 1))))).velocities is None
    )


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda m: m.points.clear(), "0 points"),
        (lambda m: m.points.extend([m.points[0]] * MAX_POINTS), "1 to 10000"),
        (lambda m: m.points.reverse(), "do not increase"),
        (lambda m: m.joint_names.append("c"), "do not fit"),
        (lambda m: setattr(m, "joint_names", ["a", "a"]), "twice"),
    ],
)
def test_trajectories_that_make_no_sense_are_refused(spoil, text: str) -> None:
    message = trajectory_to_message(Trajectory(("a", "b"), np.array([1, 2]), np.zeros((2, 2))))
    spoil(message)
    with pytest.raises(RobotError, match=text):
        message_to_trajectory(message)


@settings(max_examples=30)
@given(
    st.text(max_size=40),
    st.integers(0, 10**15),
    STAMPS,
    st.dictionaries(
        st.sampled_from(("x", "y", "keys_values")),
        hnp.arrays(st.sampled_from([np.float32, np.int64, np.uint8, np.float16]), hnp.array_shapes(max_dims=4)),
    ),
)
def test_contexts_come_back(instruction: str, epoch: int, stamp_ns: int, tensors: dict[str, np.ndarray]) -> None:
    context = Context(stamp_ns, instruction, epoch, tensors)
    back = contexts.message_to_context(sent(contexts.context_to_message(context)))
    assert (back.stamp_ns, back.instruction, back.epoch) == (stamp_ns, instruction, epoch)
    assert back.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back.tensors[name].dtype == tensor.dtype
        np.testing.assert_array_equal(back.tensors[name], tensor)


def test_a_transposed_tensor_travels_by_value() -> None:
    tensor = np.arange(6.0).reshape(2, 3).T
    back = contexts.message_to_context(contexts.context_to_message(Context(0, "", 0, {"x": tensor})))
    np.testing.assert_array_equal(back.tensors["x"], tensor)


@pytest.mark.parametrize("damage", [lambda data: data[:20], lambda data: b"\xff" * 8 + data[8:], lambda data: b""])
def test_damaged_contexts_are_refused(damage) -> None:
    message = contexts.context_to_message(Context(0, "red", 1, {"x": np.zeros(9)}))
    message.data = array.array("B", damage(message.data.tobytes()))
    with pytest.raises(RobotError, match="damaged"):
        contexts.message_to_context(message)


def test_contexts_of_another_format_or_without_instruction_are_refused() -> None:
    message = contexts.context_to_message(Context(0, "red", 1, {}))
    message.format = "pickle"
    with pytest.raises(RobotError, match="'pickle'"):
        contexts.message_to_context(message)
    from safetensors.numpy import save

    bare = CompressedImage(format=contexts.FORMAT, data=array.array("B", save({"x": np.zeros(2)})))
    with pytest.raises(RobotError, match="damaged"):
        contexts.message_to_context(bare)


def test_an_unset_stamp_reads_as_zero() -> None:
    assert time_to_ns(Time()) == 0
    assert trajectory_fields(JointTrajectory()).stamp_ns == 0
