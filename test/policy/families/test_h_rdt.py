import copy

import pytest
import torch
from family_checks import (
    GOLDEN,
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
    scrambled,
)

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.families import h_rdt, load_network
from dit_policy_ros.policy.stage_two import inherited
from dit_policy_ros.policy.weights import load_strict, read_shapes, read_tensors

SMALL = h_rdt.HRdtConfig(
    hidden=24,
    depth=2,
    heads=6,
    kv_heads=3,
    head_dim=4,
    ffn_hidden=40,
    decoder_hidden=32,
    horizon=5,
    action_dim=7,
    state_widths=(9, 24),
    action_widths=(7, 24, 24),
    img_widths=(12, 24),
    lang_widths=(10, 24, 24),
    max_img_tokens=6,
    max_lang_tokens=8,
)
SLOW = ("img_adapter", "lang_adapter", "cross_attn.wkv", "cross_attn.norm_k", "cond_norm")


def example(config, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (config.max_img_tokens - 1, config.img_widths[0]),
        (config.max_lang_tokens - 3, config.lang_widths[0]),
        (1, config.state_widths[0]),
        (config.horizon, config.action_dim),
    )
    img, lang, state, noise = (torch.randn(batch, *shape, generator=generator) for shape in shapes)
    return (img, lang), state, noise


@pytest.mark.parametrize("name", case_names("h_rdt"))
def test_reference(name):
    check_case("h_rdt", name)


@pytest.mark.parametrize("name", [name for name, _ in network("h_rdt").named_parameters() if ".blocks.2." in name])
def test_every_parameter_of_a_block_matters(name):
    net = copy.deepcopy(network("h_rdt"))
    net.get_parameter(name).data.flatten()[-1] += 0.5
    assert not passes("h_rdt", "denoise_t04", net)


def test_acting_touches_neither_images_nor_language_outside_attention():
    net = random_network("h_rdt", SMALL)
    slow, state, noise = example(SMALL)
    cache = net.encode(*slow)
    with no_calls(*modules_named(net, *SLOW)):
        first = net.sample(cache, noise, state)
        assert torch.equal(net.sample(cache, noise, state), first)


def test_the_batch_does_not_mix():
    net = random_network("h_rdt", SMALL)
    slow, state, noise = example(SMALL, batch=3)
    together = net.sample(net.encode(*slow), noise, state)
    for i in range(3):
        row = slice(i, i + 1)
        assert_close(together[row], net.sample(net.encode(*(x[row] for x in slow)), noise[row], state[row]))


def test_masked_words_have_no_influence_and_words_have():
    net = random_network("h_rdt", SMALL)
    (img, lang), state, noise = example(SMALL)
    mask = torch.tensor([[True, False, True, False, False], [True, True, True, True, False]])
    result = net.sample(net.encode(img, lang, mask), noise, state)
    assert_close(net.sample(net.encode(img, scrambled(lang, mask), mask), noise, state), result)
    assert (net.sample(net.encode(img, scrambled(lang, ~mask), mask), noise, state) - result).abs().max() > 1e-3


def test_a_float_mask_leaves_padding_visible_unless_attention_is_not_fused():
    fused = random_network("h_rdt", SMALL)
    plain = h_rdt.build(h_rdt.HRdtConfig(**{**vars(SMALL), "additive_mask": False})).eval()
    plain.load_state_dict(fused.state_dict())
    (img, lang), state, noise = example(SMALL)
    mask = torch.tensor([[True, True, False, False, False]]).expand(2, -1)
    boolean = fused.sample(fused.encode(img, lang, mask), noise, state)
    assert_close(plain.sample(plain.encode(img, lang, mask.float()), noise, state), boolean)
    assert (fused.sample(fused.encode(img, lang, mask.float()), noise, state) - boolean).abs().max() > 1e-3


def test_inference_mode():
    net = random_network("h_rdt", SMALL)
    slow, state, noise = example(SMALL)
    with torch.inference_mode():
        inside = net.sample(net.encode(*slow), noise, state, steps=3)
    assert_close(inside.clone(), net.sample(net.encode(*slow), noise, state, steps=3))


def test_official_settings_reach_the_network(tmp_path):
    net = random_network("h_rdt", SMALL)
    settings = {"hrdt": {"norm_eps": 1e-3, "use_flash_attn": False}, "noise_scheduler": {"num_inference_timesteps": 9}}
    loaded = load_network(save_checkpoint(net, tmp_path, settings))
    assert (loaded.config.eps, loaded.config.additive_mask, loaded.config.steps) == (1e-3, False, 9)
    assert loaded.model.blocks[0].attn_norm.eps == 1e-3


def test_features_of_another_encoder_are_refused():
    net = random_network("h_rdt", SMALL)
    with pytest.raises(PolicyError, match="language features are 11 wide"):
        net.encode(torch.zeros(1, 6, 12), torch.zeros(1, 5, 11))
    with pytest.raises(PolicyError, match="at most 6"):
        net.encode(torch.zeros(1, 7, 12))


def test_the_second_stage_is_the_first_where_it_inherits():
    stage1 = read_tensors(GOLDEN / "h_rdt" / "weights_pretrain.safetensors")
    stage2 = network("h_rdt").state_dict()
    names = inherited({name: tuple(value.shape) for name, value in stage1.items()}, network("h_rdt"))
    assert all(torch.equal(stage1[name], stage2[name]) for name in names)
    assert len(names) > 100


def test_legacy_and_unknown_parameters_are_not_inherited():
    shapes = read_shapes(GOLDEN / "h_rdt" / "weights_pretrain.safetensors")
    names = inherited(shapes, network("h_rdt"))
    legacy = {"st_adaptor.0.weight": (3,), "model.final_layer.weight": (3,), "something": (3,)}
    assert inherited({**shapes, **legacy}, network("h_rdt")) == names


def test_another_horizon_cannot_be_inherited():
    shapes = read_shapes(GOLDEN / "h_rdt" / "weights_pretrain.safetensors")
    with pytest.raises(CheckpointError, match=r"model.x_pos_emb \(1, 9, 32\)"):
        inherited({**shapes, "model.x_pos_emb": (1, 9, 32)}, network("h_rdt"))


def test_unexpected_parameters_are_ignored_only_on_request(tmp_path):
    net = random_network("h_rdt", SMALL)
    net.st_adaptor = torch.nn.Linear(2, 2)
    path = save_checkpoint(net, tmp_path)
    with pytest.raises(CheckpointError, match=r"unexpected: st_adaptor\.bias, st_adaptor\.weight"):
        load_network(path)
    loaded = load_network(path, ignore_unexpected=True)
    (img, lang), state, noise = example(SMALL)
    cache = loaded.encode(img, lang)
    assert_close(loaded.sample(cache, noise, state), net.sample(cache, noise, state))


def test_reference_inputs_are_needed_in_full():
    given = inputs("h_rdt", "denoise_no_lang")
    assert "lang_tokens" not in given
    net = h_rdt.build(network("h_rdt").config)
    load_strict(net, network("h_rdt").state_dict(), "the reference")
    assert net.encode(given["image_tokens"]).lang is None
