"""RDT on the ALOHA description, with a tiny random checkpoint, SigLIP-shaped features and precomputed language."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dit_policy_ros.actions.channels import JointChannels, Places
from dit_policy_ros.actions.normalise import divided, none
from dit_policy_ros.errors import CheckpointError, PolicyError, RobotError
from dit_policy_ros.policy.bindings.binding import Encoders, FamilyPolicyConfig
from dit_policy_ros.policy.bindings.rdt import RdtBinding
from dit_policy_ros.policy.encoders.language import LanguageFile
from dit_policy_ros.policy.families import rdt
from dit_policy_ros.policy.family_policy import FamilyPolicy
from dit_policy_ros.robot import load_robot
from dit_policy_ros.space import SIZE
from dit_policy_ros.types import ActionChunk, Context, Observation

CAMERAS = ("top", "right_wrist", "left_wrist")
SLOTS = load_robot("aloha").slots
NAMES = SLOTS.names
WORDS = "fold the cloth"
NOTHING = none(len(NAMES))
NETWORK = rdt.RdtConfig(
    hidden=16,
    depth=4,
    heads=2,
    ffn_hidden=16,
    horizon=8,
    action_dim=128,
    lang_widths=(5, 16),
    img_widths=(3, 16),
    state_widths=(256, 16),
    max_lang_tokens=6,
    img_tokens=2 * 3 * 4,
)


def quarters(images):
    """A vision encoder: the mean colour of the four quarters of each image."""
    rows = []
    for image in images:
        image = np.full((4, 4, 3), 127, dtype=np.uint8) if image is None else image
        halves = [half for rows in np.array_split(image, 2) for half in np.array_split(rows, 2, axis=1)]
        rows.append(np.stack([half.mean((0, 1)) / 255 for half in halves]))
    return torch.from_numpy(np.stack(rows)).float()


def make_policy(states=NOTHING, actions=NOTHING, network=NETWORK, words=3, width=5, **changes):
    torch.manual_seed(0)
    net = rdt.build(network).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.normal_(0.0, 0.3)
    language = LanguageFile({WORDS: torch.randn(words, width, generator=torch.Generator().manual_seed(1))})
    places = Places(SLOTS.indices, SIZE)
    config = FamilyPolicyConfig(
        cameras=CAMERAS,
        states=JointChannels(NAMES, places, states),
        actions=JointChannels(NAMES, places, actions),
        frames=2,
    )
    config = replace(config, **changes)
    return FamilyPolicy(config, RdtBinding(net, Encoders(language, quarters), config))


def observe(stamp_ns=1_000_000_000, seed=0, cameras=CAMERAS):
    rng = np.random.default_rng(seed)
    images = {camera: rng.integers(0, 256, (6, 8, 3), dtype=np.uint8) for camera in cameras}
    return Observation(stamp_ns, {name: 0.1 * i for i, name in enumerate(NAMES)}, images=images)


def test_a_chunk_has_the_robot_s_joints():
    policy = make_policy()
    observation = observe()
    chunk = policy.act(observation, policy.encode(observation, WORDS, epoch=3))
    assert chunk.names == NAMES
    assert chunk.actions.shape == (8, 14)
    assert (chunk.start_ns, chunk.step_ns, chunk.epoch) == (observation.stamp_ns, 40_000_000, 3)
    assert np.isfinite(chunk.actions).all()


def test_acting_on_one_context_projects_its_conditions_once():
    policy = make_policy()
    first, second = observe(), observe(stamp_ns=1_100_000_000)
    context = policy.encode(first, WORDS)
    calls = []
    for block in policy.binding.network.model.blocks:
        block.cross_attn.kv.register_forward_hook(lambda *_: calls.append(1))
    policy.act(first, context)
    policy.act(second, context)
    assert calls == []


def test_a_context_from_another_process_is_projected_once_and_gives_the_same():
    here, there = make_policy(), make_policy()
    observation = observe()
    context = there.encode(observation, WORDS)
    received = Context(context.stamp_ns, WORDS, 0, {name: np.copy(value) for name, value in context.tensors.items()})
    calls = []
    for block in here.binding.network.model.blocks:
        block.cross_attn.kv.register_forward_hook(lambda *_: calls.append(1))
    expected = there.act(observation, context).actions
    for _ in range(2):
        np.testing.assert_allclose(here.act(observation, received).actions, expected, atol=1e-5)
    assert len(calls) == NETWORK.depth


def test_frames_follow_each_other_and_start_anew_with_an_epoch():
    policy = make_policy()
    old, new = observe(seed=1), observe(seed=2)

    def tokens(observation, epoch):
        return policy.encode(observation, WORDS, epoch).tensors["img_tokens"][0].reshape(2, 12, 3)

    absent = quarters([None, None, None]).flatten(0, 1).numpy()
    seen = [quarters([o.images[camera] for camera in CAMERAS]).flatten(0, 1).numpy() for o in (old, new)]
    np.testing.assert_allclose(tokens(old, 0), [absent, seen[0]])
    np.testing.assert_allclose(tokens(new, 0), [seen[0], seen[1]])
    np.testing.assert_allclose(tokens(old, 1), [absent, seen[0]])


def test_a_missing_camera_is_replaced_but_not_all_of_them():
    policy = make_policy()
    context = policy.encode(observe(cameras=("top",)), WORDS)
    img = context.tensors["img_tokens"][0].reshape(2, 3, 4, 3)
    np.testing.assert_allclose(img[1, 1:], 127 / 255, atol=1e-6)
    assert np.abs(img[1, 0] - 127 / 255).max() > 0.01
    with pytest.raises(PolicyError, match="top, right_wrist, left_wrist"):
        policy.encode(observe(cameras=()), WORDS)


def test_gripper_scales_are_the_official_ones():
    states = np.where(["gripper" in name for name in NAMES], 4.79, 1.0)
    actions = np.where(["gripper" in name for name in NAMES], 11.9, 1.0)
    plain = make_policy()
    scaled = make_policy(states=divided(states), actions=divided(actions))
    observation = observe()
    raw = {name: value * scale for (name, value), scale in zip(observation.positions.items(), states, strict=True)}
    given = plain.act(observation, plain.encode(observation, WORDS)).actions
    robot = replace(observation, positions=raw)
    np.testing.assert_allclose(scaled.act(robot, scaled.encode(robot, WORDS)).actions, given * actions, atol=1e-5)


def test_committed_actions_come_back_and_shape_the_rest():
    policy = make_policy()
    observation = observe()
    context = policy.encode(observation, WORDS)
    free = policy.act(observation, context)
    order = tuple(reversed(NAMES))
    values = np.full((3, 14), 2.0) + np.arange(14)
    committed = ActionChunk(order, observation.stamp_ns, policy.step_ns, values)
    chunk = policy.act(observation, context, committed)
    np.testing.assert_array_equal(chunk.actions[:3], values[:, ::-1])
    assert chunk.committed == 3
    assert np.abs(chunk.actions[3:] - free.actions[3:]).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_ns": 1}, "start at the observation"),
        ({"step_ns": 1}, "policy's step"),
        ({"actions": np.zeros((8, 14))}, "less than 8"),
        ({"names": NAMES[1:], "actions": np.zeros((2, 13))}, f"lacks {NAMES[0]}"),
    ],
)
def test_a_prefix_that_does_not_fit_is_refused(changes, message):
    policy = make_policy()
    observation = observe()
    committed = ActionChunk(NAMES, observation.stamp_ns, policy.step_ns, np.zeros((2, 14)))
    with pytest.raises(PolicyError, match=message):
        policy.act(observation, policy.encode(observation, WORDS), replace(committed, **changes))


def test_a_missing_joint_and_a_foreign_context_are_refused():
    policy = make_policy()
    observation = observe()
    context = policy.encode(observation, WORDS)
    with pytest.raises(RobotError, match=NAMES[3]):
        policy.act(replace(observation, positions={n: 0.0 for n in NAMES if n != NAMES[3]}), context)
    with pytest.raises(PolicyError, match="lacks lang_mask"):
        policy.act(observation, Context(0, WORDS, 0, {"lang_tokens": np.zeros(1), "img_tokens": np.zeros(1)}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 6}, "language embedding is 6 wide, but this checkpoint takes 5"),
        ({"network": replace(NETWORK, action_dim=16)}, "action vector is 128 wide, but this checkpoint takes 16"),
        ({"network": replace(NETWORK, img_widths=(4, 16))}, "image feature is 3 wide"),
        ({"cameras": CAMERAS[:2]}, "16 image tokens; this checkpoint takes 24"),
        ({"frames": 1}, "12 image tokens"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(changes, message):
    with pytest.raises(CheckpointError, match=message):
        make_policy(**changes)


def test_the_same_observation_gives_the_same_chunk():
    policy = make_policy()
    observation = observe()
    context = policy.encode(observation, WORDS)
    first = policy.act(observation, context).actions
    np.testing.assert_array_equal(policy.act(observation, context).actions, first)
    later = replace(observation, stamp_ns=observation.stamp_ns + 1)
    assert np.abs(policy.act(later, context).actions - first).max() > 1e-6
