"""Every shipped description in config/families, loaded and stepped with a tiny random checkpoint."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_families import SHIPPED, WORDS, observe

sys.path.insert(0, str(Path(__file__).parent / "families"))
from family_checks import no_calls

from dit_policy_ros.policy.bindings.rdt2_fm import side_by_side
from dit_policy_ros.policy.checkpoint import load_policy
from dit_policy_ros.resources import share_directory
from dit_policy_ros.types import ActionChunk, Context

pytest.importorskip("transformers")
pytest.importorskip("diffusers")
shipped = pytest.mark.parametrize("name", SHIPPED)


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
