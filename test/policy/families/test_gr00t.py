"""Both action heads of GR00T."""

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

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.families import gr00t_n15, gr00t_n16, load_network

SHARED = {
    "width": 24,
    "depth": 5,
    "heads": 3,
    "ff_hidden": 40,
    "time_width": 32,
    "hidden": 20,
    "out_width": 18,
    "backbone_width": 12,
    "state_dim": 6,
    "action_dim": 4,
    "embodiments": 3,
    "max_actions": 9,
    "vl_norm": True,
    "horizon": 5,
    "steps": 3,
}
N15 = gr00t_n15.Gr00tN15Config(**SHARED, vl_depth=2, vl_heads=2, vl_hidden=16, future_tokens=2)
N16 = gr00t_n16.Gr00tN16Config(**SHARED, text_every=2)
CONFIGS = {"gr00t_n15": N15, "gr00t_n16": N16}
SETTINGS = {
    "diffusion_model_cfg": {"num_attention_heads": 3},
    "vl_self_attention_cfg": {"num_attention_heads": 2},
    "action_horizon": 5,
    "num_inference_timesteps": 3,
    "attend_text_every_n_blocks": 2,
}
families = pytest.mark.parametrize("family", CONFIGS)


def changed(config, **fields):
    return type(config)(**{**vars(config), **fields})


def example(config, batch=2, seed=1):
    """Features, image mask, fast inputs, noise."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((7, config.backbone_width), (1, config.state_dim), (config.horizon, config.action_dim))
    features, state, noise = (torch.randn(batch, *shape, generator=generator) for shape in shapes)
    image = torch.tensor([True, True, False, False, True, False, True]).expand(batch, -1)
    return features, image, (state, torch.arange(batch) % config.embodiments), noise


def encode(net, features, image, mask=None):
    return net.encode(features) if isinstance(net, gr00t_n15.Gr00tN15) else net.encode(features, mask, image)


@pytest.mark.parametrize("name", case_names("gr00t_n16"))
def test_reference_n16(name):
    check_case("gr00t_n16", name)


@pytest.mark.parametrize("name", case_names("gr00t_n15"))
def test_reference_n15(name):
    check_case("gr00t_n15", name)


@families
def test_every_parameter_matters_but_the_bias_of_keys(family):
    net, unaffected = copy.deepcopy(network(family)), []
    generator = torch.Generator().manual_seed(0)
    for name, parameter in net.named_parameters():
        if "transformer_blocks.1." in name or "transformer_blocks.2." in name or "blocks" not in name:
            before = parameter.data
            parameter.data = before + 0.3 * torch.randn(before.shape, generator=generator)
            if passes(family, "denoise_mixed_t", net):
                unaffected.append(name)
            parameter.data = before
    assert unaffected
    assert [name for name in unaffected if not name.endswith("to_k.bias")] == []


@families
def test_acting_touches_no_feature_outside_attention(family):
    net = random_network(family, CONFIGS[family])
    features, image, fast, noise = example(CONFIGS[family])
    cache = encode(net, features, image)
    blocks = net.model.transformer_blocks
    slow = [module for block in blocks[::2] for module in (block.attn1.to_k, block.attn1.to_v)]
    if family == "gr00t_n15":
        slow += modules_named(net, "vl_self_attention")
    with no_calls(net.vlln, *slow):
        assert torch.equal(net.sample(cache, noise, *fast), net.sample(cache, noise, *fast))


@families
def test_the_batch_does_not_mix(family):
    net = random_network(family, CONFIGS[family])
    features, image, fast, noise = example(CONFIGS[family], batch=3)
    together = net.sample(encode(net, features, image), noise, *fast)
    for i in range(3):
        row = slice(i, i + 1)
        alone = net.sample(encode(net, features[row], image[row]), noise[row], *(x[row] for x in fast))
        assert_close(together[row], alone)


@families
def test_embodiments_have_their_own_layers(family):
    net = random_network(family, CONFIGS[family])
    features, image, (state, ids), noise = example(CONFIGS[family])
    cache = encode(net, features, image)
    other = net.sample(cache, noise, state, ids + 1)
    assert (other - net.sample(cache, noise, state, ids)).abs().max() > 1e-3
    with pytest.raises(PolicyError, match=r"Embodiment \[2, 3\] is not in the checkpoint; it has 0 to 2"):
        net.sample(cache, noise, state, ids + 2)


@families
def test_a_shorter_chunk_than_the_table(family):
    net = random_network(family, CONFIGS[family])
    features, image, fast, noise = example(CONFIGS[family])
    assert net.sample(encode(net, features, image), noise[:, :3], *fast).shape == (2, 3, 4)


def test_masked_tokens_have_no_influence_and_valid_ones_have():
    net = random_network("gr00t_n16", N16)
    features, image, fast, noise = example(N16)
    mask = torch.tensor([[True, False, True, False, True, True, True]]).expand(2, -1)
    result = net.sample(net.encode(features, mask, image), noise, *fast)
    assert_close(net.sample(net.encode(scrambled(features, mask), mask, image), noise, *fast), result)
    for kind in (image & mask, ~image & mask):
        other = net.sample(net.encode(scrambled(features, ~kind), mask, image), noise, *fast)
        assert (other - result).abs().max() > 1e-3


def test_blocks_alternate_between_text_and_images():
    net = random_network("gr00t_n16", changed(N16, depth=9, text_every=2))
    features, image, _, _ = example(N16)
    masks = net.encode(features, None, image).masks
    text_only = [mask is not None and torch.equal(mask, ~image) for mask in masks]
    assert [i for i, text in enumerate(text_only) if text] == [0, 4, 8]
    assert all(torch.equal(masks[i], image) for i in (2, 6))
    assert all(masks[i] is None for i in (1, 3, 5, 7))


def test_without_alternation_every_token_is_seen():
    net = random_network("gr00t_n16", changed(N16, alternate=False))
    features, _, fast, noise = example(N16)
    assert net.encode(features).masks == (None,) * 5
    assert net.sample(net.encode(features), noise, *fast).isfinite().all()


def test_alternation_needs_the_image_mask():
    features, *_ = example(N16)
    with pytest.raises(PolicyError, match="image_mask"):
        random_network("gr00t_n16", N16).encode(features)


def test_a_dropped_state_is_the_mask_token():
    net = random_network("gr00t_n16", changed(N16, mask_token=(1, 1, 24)))
    features, image, (state, ids), noise = example(N16)
    cache, t = net.encode(features, None, image), torch.tensor([250])
    dropped = torch.tensor([True, False])
    first = net.denoise(cache, noise, t, state, ids, dropped)
    assert_close(net.denoise(cache, noise, t, torch.cat([-state[:1], state[1:]]), ids, dropped), first)
    assert (net.denoise(cache, noise, t, torch.cat([state[:1], -state[1:]]), ids, dropped) - first).abs().max() > 1e-3
    with pytest.raises(PolicyError, match="state dropout"):
        random_network("gr00t_n16", N16).denoise(cache, noise, t, state, ids, dropped)


@families
@pytest.mark.parametrize("fields", [{}, {"vl_norm": False, "max_actions": None}])
def test_optional_parts_are_read_off_the_parameters(tmp_path, family, fields):
    config = changed(CONFIGS[family], **fields)
    net = random_network(family, config)
    settings = {"action_head_cfg": SETTINGS} if family == "gr00t_n15" else SETTINGS
    loaded = load_network(save_checkpoint(net, tmp_path, settings, prefix="action_head."), family)
    assert loaded.config == config


def test_cross_attention_in_every_block(tmp_path):
    config = changed(N16, interleave=False, alternate=False)
    net = random_network("gr00t_n16", config)
    cfg = {"num_attention_heads": 3, "interleave_self_attention": False}
    settings = {**SETTINGS, "diffusion_model_cfg": cfg, "use_alternate_vl_dit": False}
    loaded = load_network(save_checkpoint(net, tmp_path, settings))
    assert loaded.config == config
    features, *_ = example(N16)
    assert all(pair is not None for pair in loaded.encode(features).keys_values)


def test_the_kind_of_the_odd_blocks_is_read_off_their_keys(tmp_path):
    net = random_network("gr00t_n16", changed(N16, interleave=False, alternate=False))
    settings = {**SETTINGS, "use_alternate_vl_dit": False}
    assert not load_network(save_checkpoint(net, tmp_path, settings)).config.interleave


@families
@pytest.mark.parametrize("part", ["diffusion_model_cfg", "vl_self_attention_cfg"])
def test_positions_inside_the_blocks_are_refused(tmp_path, family, part):
    settings = {**SETTINGS, part: {**SETTINGS[part], "positional_embeddings": "sinusoidal"}}
    path = save_checkpoint(random_network(family, CONFIGS[family]), tmp_path, settings)
    if family == "gr00t_n16" and part == "vl_self_attention_cfg":
        assert load_network(path).config == N16
        return
    with pytest.raises(CheckpointError, match=f"'sinusoidal' in '{part}' is not known"):
        load_network(path)


def test_the_state_token_s_shape_is_the_checkpoint_s(tmp_path):
    config = changed(N16, mask_token=(1, 1, 24))
    path = save_checkpoint(random_network("gr00t_n16", config), tmp_path, SETTINGS)
    assert load_network(path).config == config


@families
def test_unknown_heads_are_asked_for(tmp_path, family):
    path = save_checkpoint(random_network(family, CONFIGS[family]), tmp_path)
    with pytest.raises(CheckpointError, match="num_attention_heads"):
        load_network(path)


@families
def test_features_of_another_backbone_are_refused(family):
    net = random_network(family, CONFIGS[family])
    with pytest.raises(PolicyError, match="11 wide"):
        encode(net, torch.zeros(1, 7, 11), torch.ones(1, 7, dtype=torch.bool))
