import copy
from dataclasses import replace

import pytest
import torch
from family_checks import (
    assert_close,
    case_names,
    check_case,
    inputs,
    modules_named,
    network,
    no_calls,
    passes,
    random_network,
    save_checkpoint,
)

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.families import diffusion_policy_transformer as family
from dit_policy_ros.policy.families import load_network
from dit_policy_ros.policy.prenorm import PreNormLayer

NAME = "diffusion_policy_transformer"
VARIANTS = (NAME, f"{NAME}_inpaint")

SMALL = family.DiffusionTransformerConfig(
    width=24,
    layers=2,
    condition_layers=0,
    heads=3,
    feed_forward=96,
    positions=7,
    condition_tokens=4,
    input_dim=5,
    condition_dim=6,
    causal=True,
    normalized=(("action", 5), ("obs", 6)),
    action_dim=5,
    observation_steps=3,
    action_steps=4,
    train_steps=20,
)
PAINTED = replace(SMALL, condition_tokens=1, input_dim=11, condition_dim=None)
ALONE = replace(PAINTED, positions=8, condition_tokens=0)
WIRINGS = {
    "tokens": SMALL,
    "condition transformer": replace(SMALL, condition_layers=2),
    "painted": PAINTED,
    "encoder alone": ALONE,
    "not causal": replace(SMALL, causal=False),
}
wirings = pytest.mark.parametrize("config", WIRINGS.values(), ids=WIRINGS)


def random(config):
    net = random_network(NAME, config)
    for mask, first_hidden in ((net.model.mask, 1), (net.model.memory_mask, 2)):
        if mask is not None:
            mask.copy_(torch.full_like(mask, -torch.inf).triu(first_hidden))
    return net


def example(config, batch=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    observations = torch.randn(batch, config.observation_steps, 6, generator=generator)
    return observations, torch.randn(batch, 7, config.input_dim, generator=generator)


@pytest.mark.parametrize(("variant", "name"), [(v, name) for v in VARIANTS for name in case_names(v)])
def test_reference(variant, name):
    check_case(variant, name)


@pytest.mark.parametrize(
    ("variant", "name"), [(v, name) for v in VARIANTS for name, _ in network(v).model.named_parameters()]
)
def test_parameters_matter(variant, name):
    net = copy.deepcopy(network(variant))
    parameter = net.model.get_parameter(name).data
    width = net.config.width
    # A bias on the keys drops out of the softmax: change one on the values, which are last.
    (parameter[2 * width :] if "in_proj" in name else parameter.flatten())[0] += 0.5
    single_token = variant != NAME and ".norm2." in name
    assert passes(variant, "denoise_t53", net) == single_token


@pytest.mark.parametrize("cross", [False, True])
def test_a_layer_is_the_one_of_pytorch(cross):
    torch.manual_seed(0)
    kind = torch.nn.TransformerDecoderLayer if cross else torch.nn.TransformerEncoderLayer
    official = kind(24, 3, 96, activation="gelu", batch_first=True, norm_first=True).eval()
    layer = PreNormLayer(24, 3, 96, cross)
    layer.load_state_dict(official.state_dict())
    x, memory = torch.randn(2, 7, 24), torch.randn(2, 4, 24)
    mask = torch.full((7, 7), -torch.inf).triu(1)
    if cross:
        expected = official(x, memory, tgt_mask=mask)
        assert_close(layer(x, mask[None, None], layer.multihead_attn.keys_values(memory)), expected)
    else:
        assert_close(layer(x, mask[None, None]), official(x, src_mask=mask))


@wirings
def test_the_batch_does_not_mix(config):
    net = random(config)
    observations, noise = example(config)
    together = net.sample(net.encode(observations), noise, sampler="ddim", steps=4)
    for i in range(3):
        row = slice(i, i + 1)
        alone = net.sample(net.encode(observations[row]), noise[row], sampler="ddim", steps=4)
        assert_close(together[row], alone, 1e-4)


@wirings
def test_a_released_file_tells_its_wiring(tmp_path, config):
    net = random(config)
    settings = {"n_head": 3, "n_obs_steps": 3, "n_action_steps": 4, "train_steps": 20}
    loaded = load_network(save_checkpoint(net, tmp_path, settings, prefix="state_dicts.ema_model."))
    assert loaded.config == config
    observations, noise = example(config)
    assert torch.equal(loaded(loaded.encode(observations), noise, 7), net(net.encode(observations), noise, 7))


@wirings
def test_masked_actions_have_no_influence(config):
    net = random(config)
    observations, noise = example(config)
    cache, later = net.encode(observations), noise.clone()
    later[:, 4:] += 1.0
    before, after = net(cache, noise, 7), net(cache, later, 7)
    assert torch.allclose(before[:, :4], after[:, :4], atol=1e-6) == config.causal
    assert not torch.allclose(before[:, 4:], after[:, 4:], atol=1e-3)


def test_an_action_does_not_see_later_observations():
    net = random(SMALL)
    observations, noise = example(SMALL)
    later = observations.clone()
    later[:, 1:] += 1.0
    before, after = net(net.encode(observations), noise, 7), net(net.encode(later), noise, 7)
    assert_close(before[:, 0], after[:, 0], 1e-6)
    assert not torch.allclose(before[:, 1], after[:, 1], atol=1e-3)


def test_cached_keys_equal_those_of_the_whole_memory():
    net = random(SMALL)
    observations, noise = example(SMALL)
    cache = net.encode(observations)
    unsplit = replace(cache, keys_values=None)
    assert_close(net(cache, noise, 7), net(unsplit, noise, 7), 1e-6)
    with no_calls(*modules_named(net, "cond_obs_emb")):
        net(cache, noise, 7)


def test_a_step_encodes_the_time_token_only():
    net = random(SMALL)
    observations, noise = example(SMALL)
    cache, seen = net.encode(observations), []
    net.model.encoder[0].register_forward_hook(lambda _, arguments, output: seen.append(arguments[0].shape[1]))
    net.sample(cache, noise, sampler="ddim", steps=4)
    assert seen == [1] * 4


def test_painted_observations_are_in_the_sample_and_move_it():
    net = random(PAINTED)
    observations, noise = example(PAINTED)
    sample = net.sample(net.encode(observations), noise, sampler="ddim", steps=4)
    assert torch.equal(sample[:, :3, 5:], observations)
    other = net.sample(net.encode(observations + 1), noise, sampler="ddim", steps=4)
    assert not torch.allclose(sample[..., :5], other[..., :5], atol=1e-3)


def test_normalising_is_undone():
    net, action = network(NAME), inputs(NAME, "loss")["action"]
    assert_close(net.unnormalize("action", net.normalize("action", action)), action)


def test_a_lost_mask_is_missed(tmp_path):
    net = random(SMALL)
    net.model.mask = None
    with pytest.raises(CheckpointError, match=r"model\.mask"):
        load_network(save_checkpoint(net, tmp_path, {"n_head": 3, "causal_attn": True}))


def test_missing_observation_steps_are_refused():
    net = random(SMALL)
    with pytest.raises(PolicyError, match="3 observation steps; got 2"):
        net.encode(torch.zeros(1, 2, 6))
    with pytest.raises(PolicyError, match="got none"):
        net.encode()


def test_an_unknown_sampler_names_the_known():
    net = random(PAINTED)
    with pytest.raises(PolicyError, match="ddim, ddpm"):
        net.sample(net.encode(None), torch.zeros(1, 7, 11), sampler="heun")
