"""Every shipped description in config/families, loaded and stepped with a tiny random checkpoint."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_families import (
    H_RDT,
    POSES,
    SHIPPED,
    WORDS,
    make_family_directory,
    random_weights,
    statistics,
    still,
)
from tiny_models import save_siglip

sys.path.insert(0, str(Path(__file__).parent / "families"))
from family_checks import no_calls

from dit_policy_ros.actions.rotation import matrix_from_rot6d
from dit_policy_ros.errors import CheckpointError, DitPolicyError, PolicyError, RobotError
from dit_policy_ros.policy.bindings.rdt2_fm import side_by_side
from dit_policy_ros.policy.caching.family import CacheOptions
from dit_policy_ros.policy.checkpoint import load_policy
from dit_policy_ros.policy.encoders.language import LanguageFile
from dit_policy_ros.resources import share_directory
from dit_policy_ros.types import ActionChunk, Context, Observation

pytest.importorskip("transformers")
pytest.importorskip("diffusers")
shipped = pytest.mark.parametrize("name", SHIPPED)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    return {name: make_family_directory(name, root / name) for name in SHIPPED}


@pytest.fixture(scope="module")
def policies(directories):
    return {name: load_policy(directory) for name, directory in directories.items()}


@pytest.fixture
def edited(directories, tmp_path):
    """A copy of a policy directory with other entries in its policy.yaml; models are linked, not copied."""

    def edit(name, **changes):
        for file in directories[name].iterdir():
            (tmp_path / file.name).symlink_to(file)
        data = yaml.safe_load((directories[name] / "policy.yaml").read_text())
        for key, value in changes.items():
            place = data
            *path, last = key.split("__")
            for step in path:
                place = place[step]
            place[last] = value
        (tmp_path / "policy.yaml").unlink()
        (tmp_path / "policy.yaml").write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}))
        return tmp_path

    return edit


def observe(policy, stamp_ns=1_000_000_000, seed=0):
    rng = np.random.default_rng(seed)
    images = {camera: rng.integers(0, 256, (24, 32, 3), dtype=np.uint8) for camera in policy.slow_cameras}
    names = {*policy.config.actions.names, *(policy.config.states.names if policy.config.states else ())}
    return Observation(stamp_ns, still(names), images=images)


def test_every_shipped_description_is_tested():
    files = (share_directory() / "config" / "families").glob("*.yaml")
    assert {file.stem for file in files} == set(SHIPPED)


@shipped
def test_a_chunk_is_finite_absolute_and_repeatable(policies, name):
    policy = policies[name]
    observation = observe(policy)
    context = policy.encode(observation, WORDS, epoch=3)
    chunk = policy.act(observation, context)
    assert chunk.names == policy.config.actions.names
    assert chunk.actions.shape == (8, len(chunk.names))
    assert np.isfinite(chunk.actions).all()
    assert (chunk.start_ns, chunk.epoch) == (observation.stamp_ns, 3)
    np.testing.assert_array_equal(policy.act(observation, context).actions, chunk.actions)


@shipped
def test_a_context_from_another_process_gives_the_same(policies, directories, name):
    here, there = policies[name], load_policy(directories[name])
    observation = observe(here)
    context = there.encode(observation, WORDS, epoch=4)
    received = Context(context.stamp_ns, WORDS, 4, {key: np.copy(value) for key, value in context.tensors.items()})
    expected = there.act(observation, context).actions
    here._states = (-1, ())  # another test may have left a state behind
    np.testing.assert_allclose(here.act(observation, received).actions, expected, atol=1e-4)


@shipped
def test_instruction_image_and_state_matter(policies, name):
    policy = policies[name]
    observation = observe(policy)
    base = policy.act(observation, policy.encode(observation, WORDS, epoch=5)).actions
    seen = policy.encode(replace(observation, images=observe(policy, seed=7).images), WORDS, epoch=6)
    changed = np.abs(policy.act(observation, seen).actions - base).max()
    assert changed > 1e-6 if policy.slow_cameras else changed == 0.0
    moved = replace(observation, positions={n: v + 0.05 for n, v in observation.positions.items()})
    assert np.abs(policy.act(moved, policy.encode(observation, WORDS, epoch=7)).actions - base).max() > 1e-6


@shipped
def test_committed_actions_come_back_and_shape_the_rest(policies, name):
    policy = policies[name]
    observation = observe(policy)
    context = policy.encode(observation, WORDS, epoch=8)
    free = policy.act(observation, context)
    order = tuple(reversed(free.names))
    values = np.tile([observation.positions[n] for n in order], (3, 1))
    chunk = policy.act(observation, context, ActionChunk(order, observation.stamp_ns, policy.step_ns, values))
    np.testing.assert_array_equal(chunk.actions[:3], values[:, ::-1])
    assert chunk.committed == 3
    assert np.abs(chunk.actions[3:] - free.actions[3:]).max() > 1e-6


@shipped
def test_the_example_observation_is_accepted(policies, name):
    policy = policies[name]
    observation = policy.example_observation()
    assert len(policy.act(observation, policy.encode(observation, WORDS, epoch=9)).actions) == policy.horizon


@pytest.mark.parametrize("prefix", ["painted", "real_time", "spliced"])
def test_the_way_to_keep_committed_actions_can_be_chosen(edited, prefix):
    policy = load_policy(edited("gr00t_n16_openarm", prefix=prefix))
    observation = observe(policy)
    context = policy.encode(observation, WORDS)
    free = policy.act(observation, context)
    values = free.actions[:4] + 0.3
    chunk = policy.act(observation, context, ActionChunk(free.names, observation.stamp_ns, policy.step_ns, values))
    np.testing.assert_array_equal(chunk.actions[:4], values)
    assert (np.abs(chunk.actions[4:] - free.actions[4:]).max() > 1e-6) == (prefix != "spliced")


def test_relative_joints_are_added_to_the_measured_and_fingers_are_not(policies):
    policy = policies["gr00t_n16_openarm"]
    observation = observe(policy)
    channels = policy.config.actions
    measured = np.array([observation.positions[name] for name in channels.names])
    values = channels.from_network(np.zeros((2, channels.width)), measured)
    fingers = np.array(["finger" in name for name in channels.names])
    np.testing.assert_allclose(values[:, ~fingers], np.tile(measured[~fingers], (2, 1)), atol=1e-12)
    np.testing.assert_allclose(values[:, fingers], 0.0, atol=1e-12)


def test_hand_steps_add_up_from_the_measured_pose(policies):
    policy = policies["cogact_dual_franka"]
    channels = policy.config.actions
    assert channels.names == POSES
    observation = observe(policy)
    measured = np.array([observation.positions[name] for name in POSES])
    network = np.zeros((3, 14))
    network[:, 0] = 0.01  # the left hand moves along x; quantiles are -1 and 1
    network[1:, 13] = 0.7  # the right gripper opens
    values = channels.from_network(network, measured)
    np.testing.assert_allclose(values[:, 0] - measured[0], [0.01, 0.02, 0.03], atol=1e-12)
    np.testing.assert_allclose(values[:, [9, 19]], [[0, 0], [0, 1], [0, 1]])
    np.testing.assert_allclose(values[:, 3:9], np.tile(measured[3:9], (3, 1)), atol=1e-12)


def test_chunks_of_poses_hold_rotations(policies):
    policy = policies["cogact_dual_franka"]
    observation = observe(policy)
    actions = policy.act(observation, policy.encode(observation, WORDS, epoch=10)).actions
    first, second = actions[:, 3:6], actions[:, 6:9]
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0, atol=1e-9)
    np.testing.assert_allclose((first * second).sum(1), 0.0, atol=1e-9)
    assert np.allclose(np.linalg.det(matrix_from_rot6d(actions[:, 3:9])), 1.0)


def test_rdt_grippers_have_the_official_scales(policies):
    channels = policies["rdt_aloha"].config
    positions = {"left_gripper": 4.7908, "right_gripper": 4.7888}
    measured = np.array([positions.get(name, 0.0) for name in channels.states.names])
    state = channels.states.to_network(measured[None], measured)[0]
    assert (state[60], state[10]) == (pytest.approx(1.0), pytest.approx(1.0))
    command = channels.actions.from_network(np.ones((1, 128)), measured)[0]
    named = dict(zip(channels.actions.names, command, strict=True))
    assert (named["left_gripper"], named["right_gripper"]) == (pytest.approx(11.8997), pytest.approx(13.9231))
    assert named["left_waist"] == pytest.approx(1.0)


def test_lerobot_acts_from_the_observation_on(policies):
    policy = policies["lerobot_dual_franka"]
    assert (policy.binding.horizon, policy.binding.lead, policy.horizon) == (9, 1, 8)


def test_steps_and_guidance_are_read(edited):
    fast = load_policy(edited("cogact_dual_franka", steps=2, guidance_scale=1.0))
    assert (fast.config.steps, fast.config.guidance_scale) == (2, 1.0)
    calls = []
    fast.binding.network.net.register_forward_hook(lambda *_: calls.append(1))
    observation = observe(fast)
    fast.act(observation, fast.encode(observation, WORDS))
    assert len(calls) == 2


ENCODERS = ("language", "vision", "model", "latents", "frames.vision", "history.vision")
"""Where bindings keep what looks at images and words."""
INSIDE = ("static_resnet", "gripper_resnet", "perceiver", "obs_encoder", "y_embedder", "net.goal_emb", "net.tok_emb")
"""Parts of networks that belong to the slow system."""


@shipped
def test_acting_runs_nothing_of_the_slow_system(policies, name):
    policy = policies[name]
    observation = observe(policy)
    context = policy.encode(observation, WORDS, epoch=11)
    modules = []
    for path in ENCODERS:
        encoder = _at(policy.binding, path)
        for holder in (encoder, _at(encoder, "model"), _at(encoder, "dino.model"), _at(encoder, "siglip.model")):
            modules += [holder] if isinstance(holder, torch.nn.Module) else []
    modules += [part for part in (_at(policy.binding.network, path) for path in INSIDE) if part is not None]
    assert modules or not policy.slow_cameras or name.startswith("rdt2")
    with no_calls(*modules):
        policy.act(observation, context)
        policy.act(replace(observation, stamp_ns=observation.stamp_ns + policy.step_ns), context)


CACHED = ("rdt_aloha", "gr00t_n16_openarm", "lerobot_dual_franka", "uwm_openarm", "mdt_dual_franka")


@pytest.mark.parametrize("name", CACHED)
def test_sub_blocks_are_skipped_between_the_steps_that_a_cache_computes(edited, policies, name):
    observation = observe(policies[name])
    policy = load_policy(edited(name, cache={"interval": 2, "warmup": 1, "order": 0}))
    assert len(policy.sub_blocks) >= 4
    calls = []
    for block in policy.sub_blocks:  # what is inside runs only where the sub-block does
        inner = next(module for module in block.modules() if isinstance(module, torch.nn.Linear))
        inner.register_forward_hook(lambda *_: calls.append(1))

    def actions_and_calls(policy, epoch):
        calls.clear()
        return policy.act(observation, policy.encode(observation, WORDS, epoch=epoch)).actions, len(calls)

    rough, some = actions_and_calls(policy, 14)
    again, _ = actions_and_calls(policy, 15)
    np.testing.assert_allclose(again, rough, atol=1e-6)  # a chunk leaves nothing behind for the next
    assert not any("forward" in vars(block) for block in policy.sub_blocks)
    policy.config = replace(policy.config, cache=CacheOptions(interval=1))
    exact, every = actions_and_calls(policy, 16)
    assert 0 < some < every
    plain, _ = actions_and_calls(policies[name], 16)
    np.testing.assert_allclose(exact, plain, atol=1e-6)
    assert np.isfinite(rough).all()


def _at(owner, path):
    for step in path.split("."):
        owner = getattr(owner, step, None)
    return owner


def test_the_halves_of_a_condition_of_uwm_add_up(policies):
    network = policies["uwm_openarm"].binding.network
    vector = torch.randn(1, network.config.condition_width, generator=torch.Generator().manual_seed(0))
    whole = network.encode(vector)
    halves = network.encode(vector[:, :30]) + network.encode(vector[:, 30:], 30, bias=False)
    torch.testing.assert_close(halves.head, whole.head)
    torch.testing.assert_close(halves.modulations, whole.modulations)


def test_two_views_lie_side_by_side():
    left, right = (np.full((20, 30, 3), value, dtype=np.uint8) for value in (10, 200))
    wide = side_by_side([left, right])
    assert wide.shape == (384, 768, 3)
    assert (wide[:, :384] == 10).all()
    assert (wide[:, 384:] == 200).all()


def test_the_normaliser_of_a_checkpoint_is_that_of_the_channels(policies):
    policy = policies["diffusion_policy_aloha"]
    scaling = policy.binding.network.normalizer["params_dict"]["action"]
    measured, values = np.zeros(14), np.linspace(-0.1, 0.1, 14)[None]
    expected = values * scaling.scale.numpy() + scaling.offset.numpy()
    np.testing.assert_allclose(policy.config.actions.to_network(values, measured), expected.clip(-1, 1), atol=1e-6)


def test_older_states_take_part_where_the_checkpoint_sees_them(policies):
    for name in ("diffusion_policy_aloha", "uwm_openarm"):
        policy = policies[name]
        first, second = observe(policy), observe(policy, stamp_ns=1_040_000_000)
        moved = replace(first, positions={n: v + 0.05 for n, v in first.positions.items()})
        chunks = []
        for epoch, older in ((12, first), (13, moved)):
            context = policy.encode(first, WORDS, epoch=epoch)
            policy.act(older, context)
            chunks.append(policy.act(second, context).actions)
        assert np.abs(chunks[0] - chunks[1]).max() > 1e-6, name


REFUSED = [
    ("rdt_aloha", {"family": "h_rdt"}, CheckpointError, "of the family 'rdt', but 'h_rdt'"),
    ("rdt_aloha", {"family": "wind"}, CheckpointError, "Family 'wind' does not exist"),
    ("rdt_aloha", {"family": "pad"}, CheckpointError, "of the family 'rdt', but 'pad'"),
    ("rdt_aloha", {"cameras": ["top"]}, CheckpointError, "8 image tokens; this checkpoint takes 24"),
    ("rdt_aloha", {"cameras": ["behind"]}, RobotError, "'behind' does not exist"),
    ("rdt_aloha", {"frames": 0}, CheckpointError, "frames is '0'"),
    ("rdt_aloha", {"control_hz": -1}, CheckpointError, "above zero"),
    ("rdt_aloha", {"encoders__language": {"t5": "nowhere"}}, CheckpointError, "not a model directory"),
    ("rdt_aloha", {"encoders__vision": {"clip": "x", "siglip": "y"}}, CheckpointError, "siglip, dinov2 and siglip"),
    ("rdt_aloha", {"encoders": {}}, CheckpointError, "needs a language encoder"),
    ("rdt_aloha", {"actions__space": "thought"}, CheckpointError, "Space 'thought'"),
    ("rdt_aloha", {"actions__divisors": {"tail": 1.0}}, CheckpointError, "unknown tail"),
    ("rdt_aloha", {"states": None}, CheckpointError, "one mask"),
    ("rdt_aloha", {"robot": "openarm", "cameras": ["top", "left_wrist", "right_wrist"]}, CheckpointError, "divisors"),
    ("h_rdt_aloha", {"robot": "openarm"}, CheckpointError, "state vector is 16 wide, but this checkpoint takes 14"),
    ("cogact_dual_franka", {"statistics": None}, CheckpointError, "needs the file of 'statistics'"),
    ("cogact_dual_franka", {"actions__rotation": "euler"}, CheckpointError, "Rotation 'euler'"),
    ("cogact_dual_franka", {"actions__reference": "past"}, PolicyError, "Reference of end-effector actions 'past'"),
    ("cogact_dual_franka", {"states": {"space": "joints"}}, CheckpointError, "no proprioception"),
    ("cogact_dual_franka", {"steps": 30}, PolicyError, "30"),
    ("gr00t_n16_openarm", {"embodiment": 12}, CheckpointError, "Embodiment 12"),
    ("rdt2_fm_dual_franka", {"encoders": {}}, CheckpointError, "needs a vision_language encoder"),
    (
        "mode_dual_franka",
        {"cameras": ["top"]},
        CheckpointError,
        "image encoders static_resnet, gripper_resnet; cameras",
    ),
    ("mode_dual_franka", {"encoders__pixels__colours": "grey"}, CheckpointError, "Colours 'grey' does not exist"),
    ("mode_dual_franka", {"encoders__pixels__size": [0, 4]}, CheckpointError, r"size is '\[0, 4\]'"),
    ("mdt_dual_franka", {"states": {"space": "joints"}}, CheckpointError, "'mdt' sees no proprioception"),
    ("mdtv_dual_franka", {"encoders__vision": {"clip": "encoders/nowhere"}}, CheckpointError, "not a model directory"),
    ("uwm_openarm", {"cameras": ["top", "left_wrist"]}, CheckpointError, "condition of images, states and text is 58"),
    ("uwm_openarm", {"frames": 3}, CheckpointError, "sees 2 frames; 'frames' is 3"),
    ("pad_dual_franka", {"cameras": ["top", "left_wrist"]}, CheckpointError, "PAD sees one camera"),
    ("pad_dual_franka", {"encoders__latents__size": [64, 64]}, CheckpointError, "row of image tokens is 16 wide"),
    ("pad_dual_franka", {"encoders__latents__size": [30, 32]}, CheckpointError, "latents of 8 pixels"),
    ("pad_dual_franka", {"states": None}, CheckpointError, "pose is 0 wide, but this checkpoint takes 14"),
    ("diffusion_policy_aloha", {"frames": 1}, CheckpointError, "sees 2 observation steps; 'frames' is 1"),
    ("diffusion_policy_aloha", {"cameras": ["top"]}, CheckpointError, "sees no images"),
    ("rdt_aloha", {"actions__normalisation": "checkpoint"}, CheckpointError, "holds no normaliser of 'action'"),
    ("rdt_aloha", {"cache": {"interval": 0}}, PolicyError, "interval 0, warm-up 2"),
    ("rdt_aloha", {"cache": {"interval": "often"}}, CheckpointError, "cache.interval is 'often'"),
    ("mode_dual_franka", {"cache": {"interval": 2}}, PolicyError, "can be cached: Family 'mode'"),
    ("rdt_aloha", {"cameras": []}, CheckpointError, "cameras must list"),
    ("gr00t_n16_openarm", {"robot": "dual_franka"}, DitPolicyError, "another robot"),
    ("gr00t_n16_openarm", {"actions__always_absolute": ["tail"]}, PolicyError, "Channel 'tail'"),
    ("gr00t_n16_openarm", {"encoders__vision_language__layer": 9}, CheckpointError, "0 to 3; 9"),
    ("rdt_aloha", {"prefix": "glued"}, PolicyError, "Prefix 'glued'"),
    ("rdt_aloha", {"prefix": "real_time"}, PolicyError, "for flow matching"),
    ("lerobot_dual_franka", {"frames": 1}, CheckpointError, "takes 140"),
]


@pytest.mark.parametrize(("name", "changes", "error", "text"), REFUSED)
def test_what_does_not_fit_is_refused_as_it_loads(edited, name, changes, error, text):
    with pytest.raises(error, match=text):
        load_policy(edited(name, **changes))


def test_statistics_of_another_robot_are_refused(edited):
    directory = edited("gr00t_n16_openarm", statistics="other.json")
    other = statistics([f"panda_joint{i}" for i in range(16)])
    (directory / "other.json").write_text(json.dumps({"state": other, "action": other}))
    with pytest.raises(CheckpointError, match="of another robot, with panda_joint0"):
        load_policy(directory)


def test_an_embedding_of_another_width_and_another_tower_are_refused(edited, tmp_path):
    directory = edited("rdt_aloha", encoders__language={"file": "wide.safetensors"})
    LanguageFile({WORDS: torch.zeros(3, 6)}).save(directory / "wide.safetensors")
    with pytest.raises(CheckpointError, match="language embedding is 6 wide, but this checkpoint takes 5"):
        load_policy(directory)


def test_one_tower_instead_of_two_is_refused(edited):
    directory = edited("h_rdt_aloha", encoders__vision={"siglip": "one"})
    (directory / "one").mkdir()
    save_siglip(directory / "one")
    with pytest.raises(CheckpointError, match="image feature is 16 wide, but this checkpoint takes 28"):
        load_policy(directory)


def test_a_truncated_checkpoint_is_refused(edited):
    directory = edited("h_rdt_aloha")
    data = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        load_policy(directory)


@pytest.mark.parametrize("reference", ["absolute", "relative", "legacy", "delta"])
@pytest.mark.parametrize("rotation", ["rot6d_columns", "rot6d_rows", "rpy", "rotation_vector", "quaternion"])
def test_h_rdt_speaks_poses_in_every_way(edited, reference, rotation):
    """The way out and the way in are inverse to each other, whatever the statistics."""
    count = {"rot6d_columns": 6, "rot6d_rows": 6, "rpy": 3, "rotation_vector": 3, "quaternion": 4}[rotation]
    width = 2 * (4 + count)
    directory = edited(
        "h_rdt_aloha",
        robot="openarm_poses",
        states={"space": "end_effector", "arms": ["left_", "right_"], "grippers": GRIPPERS, "rotation": rotation},
        actions={
            "space": "end_effector",
            "arms": ["left_", "right_"],
            "grippers": GRIPPERS,
            "rotation": rotation,
            "reference": reference,
        },
        checkpoint="small",
    )
    sizes = replace(H_RDT, action_dim=width, state_widths=(width, 16), action_widths=(width, 16))
    random_weights("h_rdt", sizes, directory / "small")
    policy = load_policy(directory)
    observation = observe(policy)
    chunk = policy.act(observation, policy.encode(observation, WORDS))
    channels = policy.config.actions
    measured = np.array([observation.positions[name] for name in channels.names])
    again = channels.from_network(channels.to_network(chunk.actions, measured), measured)
    np.testing.assert_allclose(again, chunk.actions, atol=1e-9)


GRIPPERS = ["left_gripper", "right_gripper"]


def test_rdt_fills_the_pose_slots_of_a_robot_with_hands(edited):
    directory = edited("rdt_aloha", robot="dual_franka_poses", states={"space": "slots"}, actions={"space": "slots"})
    policy = load_policy(directory)
    filled = np.flatnonzero(policy.config.actions.mask)
    assert filled.tolist() == [10, *range(30, 39), 60, *range(80, 89)]
    observation = observe(policy)
    assert policy.act(observation, policy.encode(observation, WORDS)).names == POSES
