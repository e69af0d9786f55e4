"""The dual-system network and its policy port."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from dit_policy_ros.errors import CheckpointError, PolicyError, RobotError
from dit_policy_ros.policy.cameras import CameraView
from dit_policy_ros.policy.checkpoint import load_policy, save_dual_policy
from dit_policy_ros.policy.dual_policy import DualPolicy, DualPolicyConfig, Range
from dit_policy_ros.policy.dual_system import DualSystem, DualSystemConfig
from dit_policy_ros.policy.text import MAX_WORDS, PIECES, hash_words
from dit_policy_ros.types import ActionChunk, Observation

NAMES = ("left_a", "left_b", "right_a", "right_b")
SIZES = DualSystemConfig(
    joints=4, horizon=16, steps_per_token=4, fast_cameras=2, width=48, blocks=2, heads=4, slow_keypoints=6,
    fast_keypoints=5, text_width=32, condition=24,
)  # fmt: skip


def camera(name):
    return CameraView(name, (40, 30), (0.25, 0.0, 0.75, 1.0), (16, 24))


def make_policy(seed=0, **changes):
    torch.manual_seed(seed)
    network = DualSystem(SIZES)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    span = Range(np.array([-1.0, -2.0, -1.0, 0.0]), np.array([1.0, 2.0, 3.0, 1.0]))
    config = DualPolicyConfig(NAMES, camera("top"), (camera("left"), camera("right")), span, span, SIZES)
    return DualPolicy(replace(config, **changes), network)


def observe(seed=0, stamp_ns=5_000_000_000, order=NAMES):
    rng = np.random.default_rng(seed)
    values = dict(zip(NAMES, rng.uniform(0.0, 1.0, 4).tolist(), strict=True))
    images = {name: rng.integers(0, 256, (30, 40, 3), dtype=np.uint8) for name in ("top", "left", "right")}
    return Observation(stamp_ns=stamp_ns, positions={name: values[name] for name in order}, images=images)


def prefix(observation, count, names=NAMES, start_ns=None):
    rng = np.random.default_rng(9)
    start_ns = observation.stamp_ns if start_ns is None else start_ns
    return ActionChunk(names, start_ns, 20_000_000, rng.uniform(0, 1, (count, len(names))))


def test_committed_actions_come_back_exactly_and_shape_the_rest():
    policy, observation = make_policy(), observe()
    context = policy.encode(observation, "hand the red cube over")
    committed = prefix(observation, 8)
    chunk = policy.act(observation, context, committed)
    np.testing.assert_array_equal(chunk.actions[:8], committed.actions)
    assert chunk.committed == 8
    free = policy.act(observation, context)
    assert free.committed == 0
    assert not np.allclose(free.actions[8:], chunk.actions[8:])


def test_a_frame_beside_the_slow_image_tells_where_the_camera_stands(tmp_path):
    sizes = replace(SIZES, frame_width=8, frame_keypoints=3)
    framed = replace(camera("top"), frame=(0.0, 0.0, 1.0, 1.0), frame_width=8)
    policy = DualPolicy(replace(make_policy().config, slow_camera=framed, network=sizes), DualSystem(sizes))
    observation = observe()
    places = policy.encode(observation, "go").tensors["places"]
    image = observation.images["top"].copy()
    image[:, :8] = 255  # outside the box of the near part
    nudged = replace(observation, images={**observation.images, "top": image})
    assert not np.array_equal(policy.encode(nudged, "go").tensors["places"], places)
    plain = make_policy()
    np.testing.assert_array_equal(
        plain.encode(nudged, "go").tensors["places"], plain.encode(observation, "go").tensors["places"]
    )
    save_dual_policy(tmp_path, policy.config, policy.network, {})
    again = load_policy(tmp_path)
    np.testing.assert_allclose(again.encode(observation, "go").tensors["places"], places, atol=1e-5)
    text = (tmp_path / "policy.yaml").read_text()
    (tmp_path / "policy.yaml").write_text(text.replace("frame_width: 8, frame_key", "frame_width: 0, frame_key"))
    with pytest.raises(CheckpointError, match="takes 0 columns of frame, the camera gives 8"):
        load_policy(tmp_path)


def test_a_policy_from_before_frames_loads(tmp_path):
    policy = make_policy()
    save_dual_policy(tmp_path, policy.config, policy.network, {})
    file = tmp_path / "policy.yaml"
    written = yaml.safe_load(file.read_text())
    for part in ("slow_camera", "network"):
        written[part] = {name: value for name, value in written[part].items() if not name.startswith("frame")}
    file.write_text(yaml.safe_dump(written))
    context = policy.encode(observe(), "go")
    actions = policy.act(observe(), context).actions
    np.testing.assert_allclose(load_policy(tmp_path).act(observe(), context).actions, actions, atol=1e-5)


def test_prefix_is_mapped_by_name():
    policy, observation = make_policy(), observe()
    context = policy.encode(observation, "go")
    committed = prefix(observation, 4)
    order = [2, 0, 3, 1]
    shuffled = replace(committed, names=tuple(NAMES[i] for i in order), actions=committed.actions[:, order])
    np.testing.assert_array_equal(
        policy.act(observation, context, committed).actions, policy.act(observation, context, shuffled).actions
    )


def test_joint_order_of_the_observation_does_not_matter():
    policy = make_policy()
    context = policy.encode(observe(), "go")
    straight = policy.act(observe(), context).actions
    np.testing.assert_array_equal(straight, policy.act(observe(order=NAMES[::-1]), context).actions)


def test_acting_never_touches_the_context_projections():
    policy, observation = make_policy(), observe()
    calls = []
    for module in [
        policy.network.text,
        policy.network.slow_camera,
        *[b.cross_keys_values for b in policy.network.blocks],
    ]:
        module.register_forward_hook(lambda *args: calls.append(1))
    context = policy.encode(observation, "go")
    encoded = len(calls)
    assert encoded == 2 + SIZES.blocks
    policy.act(observation, context)
    policy.act(observation, context)
    assert len(calls) == encoded


def test_instruction_slow_image_and_age_all_matter():
    policy = make_policy()
    context = policy.encode(observe(0), "take the red cube")
    chunk = policy.act(observe(1), context).actions
    other_words = policy.act(observe(1), policy.encode(observe(0), "take the blue cube")).actions
    other_image = policy.act(observe(1), policy.encode(observe(2), "take the red cube")).actions
    older = policy.act(observe(1), replace(context, stamp_ns=context.stamp_ns - 500_000_000)).actions
    for other in (other_words, other_image, older):
        assert np.abs(other - chunk).max() > 1e-6


def test_same_observation_same_chunk():
    first, second = (make_policy() for _ in range(2))
    observation = observe()
    a = first.act(observation, first.encode(observation, "go"))
    b = second.act(observation, second.encode(observation, "go"))
    np.testing.assert_array_equal(a.actions, b.actions)
    assert a.start_ns == observation.stamp_ns == a.observation_ns


def test_a_mirrored_chunk_is_the_mean_of_two():
    once, negative = (make_policy(noise_scale=scale, mirrored=False) for scale in (1.0, -1.0))
    both = make_policy(mirrored=True)
    chunks = [policy.act(observe(), policy.encode(observe(), "go")).actions for policy in (once, negative, both)]
    assert np.abs(chunks[0] - chunks[1]).max() > 1e-3
    np.testing.assert_allclose((chunks[0] + chunks[1]) / 2, chunks[2], atol=1e-5)


def test_a_chunk_is_followed_for_a_third_of_its_length():
    assert make_policy().execution_horizon_s == pytest.approx(16 * 0.02 / 3, abs=1e-6)
    assert make_policy(step_ns=40_000_000).execution_horizon_s == pytest.approx(16 * 0.04 / 3, abs=1e-6)


def test_news_is_what_lies_elsewhere_by_more_than_the_eye_errs():
    policy = make_policy()
    context = policy.encode(observe(), "go")
    for moved, is_news in ((0.0, False), (0.1, False), (-0.2, True)):
        places = context.tensors["places"].copy()
        places[0, 1] += moved
        assert policy.is_news(context, replace(context, tensors={**context.tensors, "places": places})) == is_news


def test_noise_scale_zero_starts_from_the_mean():
    policy = make_policy(noise_scale=0.0)
    context = policy.encode(observe(), "go")
    later = replace(observe(), stamp_ns=5_020_000_000)
    aged = replace(context, stamp_ns=context.stamp_ns + 20_000_000)
    np.testing.assert_array_equal(policy.act(observe(), context).actions, policy.act(later, aged).actions)


@pytest.mark.parametrize(
    ("count", "start_ns", "names", "match"),
    [
        (3, None, NAMES, "multiples of 4 below 16"),
        (16, None, NAMES, "multiples of 4 below 16"),
        (4, 123, NAMES, "start at the observation"),
        (4, None, NAMES[:3], "lacks right_b"),
    ],
)
def test_bad_prefix_is_refused(count, start_ns, names, match):
    policy, observation = make_policy(), observe()
    context = policy.encode(observation, "go")
    with pytest.raises(PolicyError, match=match):
        policy.act(observation, context, prefix(observation, count, names, start_ns))


def test_bad_observation_is_refused():
    policy, observation = make_policy(), observe()
    context = policy.encode(observation, "go")
    with pytest.raises(PolicyError, match="Camera left is missing"):
        policy.act(replace(observation, images={"right": observation.images["right"]}), context)
    odd = {**observation.images, "left": np.zeros((10, 10, 3), np.uint8)}
    with pytest.raises(PolicyError, match=r"\(30, 40, 3\) uint8"):
        policy.act(replace(observation, images=odd), context)
    with pytest.raises(RobotError, match="right_b is not finite"):
        policy.act(replace(observation, positions={**observation.positions, "right_b": float("nan")}), context)
    with pytest.raises(RobotError, match="Missing joint left_a"):
        policy.act(replace(observation, positions=dict.fromkeys(NAMES[1:], 0.0)), context)
    with pytest.raises(PolicyError, match="another policy"):
        policy.act(observation, replace(context, tensors={}))


def test_batch_rows_do_not_influence_each_other():
    network = make_policy().network
    generator = torch.Generator().manual_seed(1)
    image, fast = torch.randn(3, 3, 24, 16, generator=generator), torch.randn(3, 2, 3, 24, 16, generator=generator)
    words = torch.stack([hash_words(text) for text in ("red", "a longer blue sentence", "")])
    state, age = torch.randn(3, 4, generator=generator), torch.tensor([0.0, 0.3, 0.9])
    x, t = torch.randn(3, 16, 4, generator=generator), torch.tensor([0.1, 0.5, 0.9])
    committed = torch.arange(16) < torch.tensor([[0], [4], [8]])

    def run(rows):
        slow = network.encode(image[rows], words[rows])
        look = network.look(slow, fast[rows], state[rows], age[rows])
        return network.velocity(slow, look, x[rows], t[rows], committed[rows])

    with torch.inference_mode():
        together = run(slice(None))
        for row in range(3):
            torch.testing.assert_close(run(slice(row, row + 1))[0], together[row], atol=1e-5, rtol=1e-4)


def test_untrained_network_predicts_no_motion():
    torch.manual_seed(0)
    network = DualSystem(SIZES)
    slow = network.encode(torch.randn(1, 3, 24, 16), hash_words("go")[None])
    look = network.look(slow, torch.randn(1, 2, 3, 24, 16), torch.randn(1, 4), torch.zeros(1))
    velocity = network.velocity(slow, look, torch.randn(1, 16, 4), torch.zeros(1), torch.zeros(1, 16, dtype=torch.bool))
    assert velocity.abs().max() == 0


def test_words_are_hashed_the_same_everywhere():
    table = hash_words("Red, RED; cube!")
    assert table.shape == (MAX_WORDS, PIECES)
    assert torch.equal(table[0], table[1])
    assert table[0, 0] == 1 + zlib.crc32(b"<red>") % 8191
    assert not torch.equal(table[0], table[2])
    assert (table[3:] == 0).all()


def test_checkpoint_round_trip(tmp_path):
    policy, observation = make_policy(), observe()
    save_dual_policy(tmp_path / "p", policy.config, policy.network, {"seed": 3})
    loaded = load_policy(tmp_path / "p")
    chunks = [each.act(observation, each.encode(observation, "go")).actions for each in (policy, loaded)]
    np.testing.assert_allclose(chunks[1], chunks[0], rtol=1e-5, atol=1e-6)


def test_damaged_checkpoints_say_what_is_wrong(tmp_path):
    policy = make_policy()
    with pytest.raises(CheckpointError, match="python -m dit_policy_ros train"):
        load_policy(tmp_path / "nowhere")
    directory = tmp_path / "p"
    save_dual_policy(directory, policy.config, policy.network, {})
    text = (directory / "policy.yaml").read_text()
    (directory / "policy.yaml").write_text(text.replace("kind: dual_system", "kind: oracle"))
    with pytest.raises(CheckpointError, match="dual_system"):
        load_policy(directory)
    (directory / "policy.yaml").write_text(text.replace("blocks: 2", "blocks: 3"))
    with pytest.raises(CheckpointError, match=r"blocks\.2"):
        load_policy(directory)
    (directory / "policy.yaml").write_text(text.replace("step_ns:", "pace_ns:"))
    with pytest.raises(CheckpointError, match="lacks step_ns"):
        load_policy(directory)
    (directory / "policy.yaml").write_text(text)
    weights = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError):
        load_policy(directory)
