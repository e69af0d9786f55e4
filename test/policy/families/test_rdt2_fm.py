import copy

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
    scrambled,
)

from dit_policy_ros.errors import PolicyError
from dit_policy_ros.policy.families import load_network, rdt2_fm

SMALL = rdt2_fm.Rdt2FmConfig(
    hidden=24,
    depth=3,
    heads=6,
    kv_heads=2,
    head_dim=4,
    ffn_hidden=40,
    final_hidden=32,
    horizon=5,
    registers=2,
    action_dim=7,
    action_widths=(7, 24),
    state_widths=(9, 24, 24),
    lang_widths=(11, 24, 24),
)
# What a cache of the language model makes superfluous.
UNUSED = ("cross_attn.wkv.weight", "cross_attn.norm_k.weight", "cond_norm.weight")


def example(config, batch=2, layers=3, tokens=6, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    cache = (normal(layers, batch, config.kv_heads, tokens, config.head_dim) for _ in range(2))
    return tuple(cache), normal(batch, 1, config.state_widths[0]), normal(batch, config.horizon, config.action_dim)


@pytest.mark.parametrize("name", case_names("rdt2_fm"))
def test_reference(name):
    check_case("rdt2_fm", name)


@pytest.mark.parametrize("name", [name for name, _ in network("rdt2_fm").named_parameters() if ".blocks.1." in name])
def test_every_parameter_of_a_block_matters_unless_the_cache_replaces_it(name):
    net = copy.deepcopy(network("rdt2_fm"))
    net.get_parameter(name).data.flatten()[-1] += 0.5
    assert passes("rdt2_fm", "denoise_t06", net) == name.endswith(UNUSED)


def test_blocks_take_the_layers_in_turn():
    net = random_network("rdt2_fm", SMALL)
    (keys, values), state, noise = example(SMALL, layers=2)
    spelled_out = net.encode(keys[[0, 1, 0]], values[[0, 1, 0]])
    assert_close(net.sample(net.encode(keys, values), noise, state), net.sample(spelled_out, noise, state))


def test_acting_twice_projects_no_condition():
    net = random_network("rdt2_fm", SMALL)
    _, state, noise = example(SMALL)
    cache = net.encode_tokens(torch.randn(2, 4, 11))
    with no_calls(*modules_named(net, "lang_adaptor", "cross_attn.wkv", "cross_attn.norm_k", "cond_norm")):
        assert torch.equal(net.sample(cache, noise, state), net.sample(cache, noise, state))


def test_tokens_of_their_own_for_every_block():
    net = random_network("rdt2_fm", SMALL)
    _, state, noise = example(SMALL)
    tokens = torch.randn(2, 4, 11, generator=torch.Generator().manual_seed(0))
    shared = net.sample(net.encode_tokens(tokens), noise, state)
    assert_close(net.sample(net.encode_tokens(tokens[:, None].expand(-1, 3, -1, -1)), noise, state), shared)
    other = torch.stack([tokens, tokens, 1 - tokens], dim=1)
    assert (net.sample(net.encode_tokens(other), noise, state) - shared).abs().max() > 1e-3


def test_the_batch_does_not_mix():
    net = random_network("rdt2_fm", SMALL)
    (keys, values), state, noise = example(SMALL, batch=3)
    together = net.sample(net.encode(keys, values), noise, state)
    for i in range(3):
        row = slice(i, i + 1)
        assert_close(together[row], net.sample(net.encode(keys[:, row], values[:, row]), noise[row], state[row]))


def test_padding_on_the_left_has_no_influence():
    net = random_network("rdt2_fm", SMALL)
    (keys, values), state, noise = example(SMALL)
    mask = torch.tensor([[False, False, True, True, True, True], [True] * 6])
    keep = mask[None, :, None].expand(keys.shape[:-1])
    result = net.sample(net.encode(keys, values, mask), noise, state)

    def changed(keep):
        pair = (scrambled(x.flatten(0, 2), keep.flatten(0, 2)).view_as(x) for x in (keys, values))
        return net.sample(net.encode(*pair, mask), noise, state)

    assert_close(changed(keep), result)
    assert (changed(~keep) - result).abs().max() > 1e-3


def test_a_cache_of_another_language_model_is_refused():
    net = random_network("rdt2_fm", SMALL)
    with pytest.raises(PolicyError, match="4 heads of 4; this network attends to 2 of 4"):
        net.encode(torch.zeros(3, 1, 4, 5, 4), torch.zeros(3, 1, 4, 5, 4))


def test_the_release_has_no_language_adapter(tmp_path):
    config = rdt2_fm.Rdt2FmConfig(**{**vars(SMALL), "lang_widths": None})
    net = random_network("rdt2_fm", config)
    path = save_checkpoint(
        net, tmp_path, {"rdt": {"norm_eps": 1e-4}, "noise_scheduler": {"num_inference_timesteps": 2}}
    )
    loaded = load_network(path)
    assert loaded.config == rdt2_fm.Rdt2FmConfig(**{**vars(config), "eps": 1e-4, "steps": 2})
    assert not hasattr(loaded, "lang_adaptor")
