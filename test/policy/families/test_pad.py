import copy
import math
from dataclasses import replace

import pytest
import torch
from family_checks import (
    assert_close,
    case_names,
    check_case,
    modules_named,
    network,
    no_calls,
    passes,
    random_network,
    save_checkpoint,
)

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.corruption import diffused
from dit_policy_ros.policy.families import load_network, pad
from dit_policy_ros.policy.modalities import ACTION, DEPTH, IMAGE, PadSample, Part
from dit_policy_ros.policy.schedules import linear
from dit_policy_ros.policy.variational import Chain

POSED = pad.PadConfig(
    hidden=24,
    depth=2,
    heads=3,
    mlp_hidden=40,
    time_width=16,
    text_width=10,
    parts=(Part(IMAGE, 12, 8, 2, 6), Part(ACTION, 13, 10, 1, 1), Part(DEPTH, 3, 2, 4, 6)),
    steps=5,
)
FREE = replace(POSED, text_width=None, image_apart=False, parts=(POSED.parts[0], Part(ACTION, 5, 5, 1, 2)))
SILENT = replace(POSED, parts=(POSED.parts[0],))
PAINTER = replace(POSED, parts=(POSED.parts[0], POSED.parts[2]))
OPTIONS = {"with pose and depth": POSED, "without": FREE, "no actions": SILENT, "depth, no actions": PAINTER}
options = pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)


def example(config, batch=3, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(batch, *shape, generator=generator)

    known = normal(10), normal(4, 4, 6), normal(1, 3), normal(1, 8, 12)
    if config is SILENT:
        return known[:2], PadSample(normal(8, 4, 6))
    if config is PAINTER:
        return (*known[:2], None, known[3]), PadSample(normal(8, 4, 6), None, normal(2, 8, 12))
    if config is FREE:
        return (None, known[1]), PadSample(normal(8, 4, 6), normal(2, 5))
    return known, PadSample(normal(8, 4, 6), normal(1, 10), normal(2, 8, 12))


def rows(values, i):
    return tuple(None if each is None else each[i : i + 1] for each in values)


@pytest.mark.parametrize("name", case_names("pad"))
def test_reference(name):
    check_case("pad", name)


@pytest.mark.parametrize("name", [name for name, _ in network("pad").named_parameters()])
def test_every_parameter_matters(name):
    net = copy.deepcopy(network("pad"))
    # A bias on the keys drops out of the softmax: change one on the values, which are last.
    net.get_parameter(name).data.view(-1)[-1] += 0.5
    assert not passes("pad", "denoise_mid", net)


@options
def test_the_batch_does_not_mix(config):
    net = random_network("pad", config)
    known, noise = example(config)
    draws = torch.randn(4, 3, noise.packed().shape[1])
    together = net.sample(net.encode(*known), noise, draws)
    for i in range(3):
        alone = net.sample(net.encode(*rows(known, i)), PadSample(*rows(noise, i)), draws[:, i : i + 1])
        for part, expected in zip(together, alone, strict=True):
            if part is not None:
                assert_close(part[i : i + 1], expected, 1e-3)


@options
def test_images_look_at_actions_only_where_the_mask_is_off(config):
    net = random_network("pad", config)
    known, noise = example(config)
    cache = net.encode(*known)
    if noise.action is None:
        assert net(cache, noise, 40).action is None
        return
    before, after = net(cache, noise, 40), net(cache, noise._replace(action=noise.action + 1), 40)
    assert torch.allclose(before.latent, after.latent, atol=1e-6) == config.image_apart
    other = net(cache, noise._replace(latent=noise.latent + 1), 40)
    assert not torch.allclose(before.action, other.action, atol=1e-3)


def test_a_step_embeds_no_text():
    net = random_network("pad", POSED)
    known, noise = example(POSED)
    cache = net.encode(*known)
    with no_calls(*modules_named(net, "embedding_table")):
        net.sample(cache, noise)
    changed = net.encode(*known[:2], known[2] + 1, known[3])
    assert torch.equal(cache.known[IMAGE], changed.known[IMAGE])
    assert not torch.allclose(cache.known[ACTION], changed.known[ACTION])


@options
def test_the_split_embedding_equals_the_joint_one(config):
    net = random_network("pad", config)
    known, noise = example(config)
    part = config.parts[0]
    joint = net.x_embedder["proj"](torch.cat([noise.latent, known[1]], dim=1)).flatten(2).transpose(1, 2)
    split = net._embed(part, noise.latent, known=False) + net.encode(*known).known[IMAGE]
    assert_close(split, joint + net.pos_embed)


@options
def test_packing_is_undone(config):
    _, noise = example(config)
    again = noise.unpacked(noise.packed())
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(noise, again, strict=True))


@options
def test_sizes_come_from_the_parameters(tmp_path, config):
    net = random_network("pad", config)
    settings = {"num_heads": 3, "inference_steps": 5, "args": {"attn_mask": config.image_apart}}
    assert load_network(save_checkpoint(net, tmp_path, settings, prefix="model.")).config == config


@pytest.mark.parametrize(("given", "what"), [(2, "pose"), (3, "depth map")])
def test_a_missing_observation_is_named(given, what):
    net = random_network("pad", POSED)
    known, _ = example(POSED)
    with pytest.raises(PolicyError, match=f"conditioned on the current {what}"):
        net.encode(*known[:given])


def test_a_respaced_chain_keeps_the_cumulative_products():
    schedule = linear(100, single_precision=False)
    kept = (0, 10, 50, 99)
    chain = Chain.respaced(schedule, kept)
    expected = torch.tensor([schedule.alphas_cumprod[k] for k in kept], dtype=torch.float64)
    assert_close((1 - chain.betas).cumprod(0), expected, 1e-9)


def test_the_bound_is_zero_for_the_exact_posterior():
    chain = Chain.respaced(linear(100, single_precision=False), range(100))
    clean, noise = torch.randn(4, 3), torch.randn(4, 3)
    steps = torch.tensor([5, 30, 60, 99])
    alpha_bar = chain.alphas_cumprod[steps][:, None].float()
    noisy = alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise
    exact = chain.bound(clean, noisy, steps, noise, -torch.ones(4, 3))
    assert_close(exact, torch.zeros(4), 1e-4)
    assert (chain.bound(clean, noisy, steps, noise + 1, -torch.ones(4, 3)) > exact).all()


def test_the_first_step_counts_bits_of_a_bin():
    chain = Chain.respaced(linear(100, single_precision=False), range(100))
    clean = torch.tensor([[0.0]])
    bits = chain.bound(clean, clean, torch.tensor([0]), torch.zeros(1, 1), torch.ones(1, 1))
    deviation = math.sqrt(chain.betas[0])
    mass = math.erf(1 / 255 / deviation / math.sqrt(2))
    assert bits.item() == pytest.approx(-math.log2(mass), abs=2e-3)


@options
def test_every_modality_has_a_loss_of_its_own(config):
    net = random_network("pad", config)
    known, clean = example(config)
    noise, t = example(config, seed=2)[1], torch.tensor([3, 40, 900])
    losses = net.loss(net.encode(*known), clean, noise, t)
    pairs = [(a, n) for a, n in zip(clean, noise, strict=True) if a is not None]
    noisy = clean.like(diffused(a, n, t, net.schedule) for a, n in pairs)
    predicted, _ = net(net.encode(*known), noisy, t).halves()
    expected = [(p - n).square().flatten(1).mean(1) for p, n in zip(predicted, noise, strict=True) if p is not None]
    assert len(losses) == len(config.parts)
    for loss, error in zip(losses, expected, strict=True):
        assert_close(loss.error, error)
