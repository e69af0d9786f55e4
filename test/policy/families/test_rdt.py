import copy

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
    reference,
    save_checkpoint,
    scrambled,
)

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.families import load_network, rdt
from dit_policy_ros.space import SLOTS

SMALL = rdt.RdtConfig(
    hidden=24,
    depth=3,
    heads=2,
    ffn_hidden=40,
    horizon=5,
    action_dim=16,
    lang_widths=(10, 24),
    img_widths=(12, 24, 24, 24),
    state_widths=(32, 24, 24),
    max_lang_tokens=7,
    img_tokens=6,
)
SLOW = ("lang_adaptor", "img_adaptor", "cross_attn.kv", "cross_attn.k_norm")


def example(config, batch=2, seed=1):
    """Slow inputs, fast inputs and noise of a configuration."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    slow = (
        normal(batch, config.max_lang_tokens - 2, config.lang_widths[0]),
        normal(batch, config.img_tokens, config.img_widths[0]),
    )
    slots = (normal(1, 1, config.action_dim) > 0).float().expand(batch, -1, -1)
    fast = (normal(batch, 1, config.action_dim), slots, torch.arange(batch) + 25)
    return slow, fast, normal(batch, config.horizon, config.action_dim)


@pytest.mark.parametrize("name", case_names("rdt"))
def test_reference(name):
    check_case("rdt", name)


def test_the_norm_that_newer_timm_has_gives_its_own_reference():
    given = inputs("rdt", "denoise_t437")
    config = rdt.RdtConfig(**{**vars(network("rdt").config), "mean_square_norm": True})
    net = rdt.build(config).eval()
    net.load_state_dict(network("rdt").state_dict())
    cache = net.encode(given["lang_tokens"], given["img_tokens"], given["lang_attn_mask"])
    fast = (given["state_tokens"], given["action_mask"], given["ctrl_freqs"])
    with torch.no_grad():
        prediction = net.denoise(cache, given["noisy_action"], given["timesteps"], *fast)
    assert_close(prediction, reference("rdt").arrays["diagnostic.mean_square_norm.pred"], 2e-5)
    assert not passes("rdt", "denoise_t437", net)


@pytest.mark.parametrize("name", [name for name, _ in network("rdt").named_parameters() if ".blocks.2." in name])
def test_every_parameter_of_a_block_matters(name):
    net = copy.deepcopy(network("rdt"))
    net.get_parameter(name).data.flatten()[-1] += 0.5
    assert not passes("rdt", "denoise_t437", net)


def test_acting_touches_neither_images_nor_language_outside_attention():
    net = random_network("rdt", SMALL)
    slow, fast, noise = example(SMALL)
    cache = net.encode(*slow)
    with no_calls(*modules_named(net, *SLOW)):
        first = net.sample(cache, noise, *fast)
        assert torch.equal(net.sample(cache, noise, *fast), first)
    with pytest.raises(AssertionError), no_calls(*modules_named(net, *SLOW)):
        net.encode(*slow)


def test_the_batch_does_not_mix():
    net = random_network("rdt", SMALL)
    slow, fast, noise = example(SMALL, batch=3)
    together = net.sample(net.encode(*slow), noise, *fast)
    for i in range(3):
        row = slice(i, i + 1)
        alone = net.sample(net.encode(*(x[row] for x in slow)), noise[row], *(x[row] for x in fast))
        assert_close(together[row], alone)


def test_masked_words_have_no_influence_and_words_have():
    net = random_network("rdt", SMALL)
    (lang, img), fast, noise = example(SMALL)
    mask = torch.tensor([[True, True, False, True, False], [True, False, False, False, False]])
    result = net.sample(net.encode(lang, img, mask), noise, *fast)
    assert_close(net.sample(net.encode(scrambled(lang, mask), img, mask), noise, *fast), result)
    changed = net.sample(net.encode(scrambled(lang, ~mask), img, mask), noise, *fast)
    assert (changed - result).abs().max() > 1e-3


def test_slots_without_a_joint_stay_zero():
    net = random_network("rdt", SMALL)
    slow, fast, noise = example(SMALL)
    actions = net.sample(net.encode(*slow), noise, *fast)
    assert (actions[fast[1].expand_as(actions) == 0] == 0).all()
    assert (actions[fast[1].expand_as(actions) == 1] != 0).all()


def test_the_last_sample_is_the_last_prediction_whatever_the_noise_scale():
    net = random_network("rdt", SMALL)
    slow, fast, noise = example(SMALL)
    calls = []
    handle = net.register_forward_hook(lambda module, arguments, output: calls.append(output))
    actions = net.sample(net.encode(*slow), noise, *fast, steps=3)
    handle.remove()
    assert len(calls) == 3
    assert torch.equal(actions, calls[-1] * fast[1])


def test_inference_mode_and_bfloat16():
    net = random_network("rdt", SMALL)
    slow, fast, noise = example(SMALL)
    wide = net.sample(net.encode(*slow), noise, *fast)
    half = copy.deepcopy(net).bfloat16()
    with torch.inference_mode():
        cache = half.encode(*(x.bfloat16() for x in slow))
        narrow = half.sample(cache, noise.bfloat16(), *(x.bfloat16() for x in fast[:2]), fast[2])
    assert narrow.dtype == torch.bfloat16
    assert (narrow.float() - wide).abs().max() < 0.1 * wide.abs().max()


def test_official_settings_reach_the_sampler(tmp_path):
    scheduler = {"num_train_timesteps": 50, "num_inference_timesteps": 4, "prediction_type": "epsilon"}
    path = save_checkpoint(random_network("rdt", SMALL), tmp_path, {"config": {"noise_scheduler": scheduler}})
    config = load_network(path).config
    assert (config.train_steps, config.steps, config.prediction) == (50, 4, "epsilon")


def test_epsilon_prediction_learns_the_noise():
    config = rdt.RdtConfig(**{**vars(SMALL), "prediction": "epsilon"})
    net = random_network("rdt", config)
    slow, fast, noise = example(config)
    cache, t = net.encode(*slow), torch.tensor([3, 700])
    actions = torch.ones_like(noise)
    level = torch.tensor([net.schedule.alphas_cumprod[3], net.schedule.alphas_cumprod[700]])[:, None, None]
    noisy = level.sqrt() * actions + (1 - level).sqrt() * noise
    expected = (net.denoise(cache, noisy, t, *fast) - noise).square().mean()
    assert_close(net.loss(cache, actions, noise, t, *fast), expected)


@pytest.mark.parametrize(
    ("lang", "img", "message"),
    [((5, 11), (6, 12), "11 wide"), ((8, 10), (6, 12), "at most 7"), ((5, 10), (5, 12), "exactly 6")],
)
def test_features_of_another_encoder_are_refused(lang, img, message):
    with pytest.raises(PolicyError, match=message):
        random_network("rdt", SMALL).encode(torch.zeros(1, *lang), torch.zeros(1, *img))


def test_the_slots_are_those_of_the_unified_space():
    assert dict(SLOTS) == reference("rdt").cases["unified_space"]["unified_vector"]["name_to_index"]


def test_a_deepspeed_file_has_another_prefix(tmp_path):
    net = random_network("rdt", SMALL)
    assert load_network(save_checkpoint(net, tmp_path, prefix="module."), "rdt").config == net.config


def test_a_size_that_cannot_be_read_is_named(tmp_path):
    net = random_network("rdt", SMALL)
    del net.state_adaptor
    with pytest.raises(CheckpointError, match="state_adaptor"):
        load_network(save_checkpoint(net, tmp_path))
