import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
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

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.families import cogact, load_network
from dit_policy_ros.policy.references import cogact as runner
from dit_policy_ros.policy.references.cogact import unnormalize
from dit_policy_ros.policy.references.directory import Reference

SMALL = cogact.CogActConfig(
    hidden=24,
    depth=2,
    heads=3,
    mlp_hidden=40,
    horizon=5,
    action_dim=8,
    history_dim=8,
    token_width=10,
    null_width=10,
)


def example(config, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    token = torch.randn(batch, 1, config.token_width, generator=generator)
    return token, torch.randn(batch, config.horizon, config.action_dim, generator=generator)


@pytest.mark.parametrize("name", case_names("cogact"))
def test_reference(name):
    check_case("cogact", name)


@pytest.mark.parametrize("name", [name for name, _ in network("cogact").named_parameters()])
def test_every_parameter_but_the_history_matters(name):
    net = copy.deepcopy(network("cogact"))
    net.get_parameter(name).data.flatten()[0] += 0.5
    assert passes("cogact", "denoise_guided", net) == ("history" in name)


def test_acting_twice_embeds_no_cognition_token():
    net = random_network("cogact", SMALL)
    token, noise = example(SMALL)
    cache = net.encode(token)
    with no_calls(*modules_named(net, "z_embedder", "z_embedder.linear")):
        assert torch.equal(net.sample(cache, noise), net.sample(cache, noise))


def test_the_batch_does_not_mix():
    net = random_network("cogact", SMALL)
    token, noise = example(SMALL, batch=3)
    together = net.sample(net.encode(token), noise)
    for i in range(3):
        row = slice(i, i + 1)
        assert_close(together[row], net.sample(net.encode(token[row]), noise[row]), 1e-4)


def test_guidance_is_off_at_one_and_below():
    net = random_network("cogact", SMALL)
    token, noise = example(SMALL)
    cache = net.encode(token)
    plain = net.denoise(cache, noise, torch.tensor([40]))
    for scale, same in ((0.3, True), (1.0, True), (1.1, False)):
        assert torch.equal(net.denoise(cache, noise, torch.tensor([40]), scale), plain) is same


def test_a_null_token_of_another_width_forbids_guidance_only():
    net = random_network("cogact", cogact.CogActConfig(**{**vars(SMALL), "null_width": 4096}))
    token, noise = example(SMALL)
    cache = net.encode(token)
    assert net.sample(cache, noise, guidance_scale=1.0).isfinite().all()
    with pytest.raises(PolicyError, match="guidance scale of 1"):
        net.sample(cache, noise)
    with pytest.raises(PolicyError, match="null token is 4096 wide"):
        net.encode(token, torch.tensor([True, False]))


def test_a_step_count_without_a_stride_is_refused():
    net = random_network("cogact", SMALL)
    token, noise = example(SMALL)
    with pytest.raises(PolicyError, match="60"):
        net.sample(net.encode(token), noise, steps=60)


def test_the_schedule_is_that_of_the_settings(tmp_path):
    net = random_network("cogact", SMALL)
    path = save_checkpoint(net, tmp_path, {"num_heads": 3, "noise_schedule": "linear", "train_steps": 50})
    levels = load_network(path).schedule.alphas_cumprod
    betas = 1 - np.array(levels[1:]) / np.array(levels[:-1])
    np.testing.assert_allclose(betas[[0, -1]], [0.02 * (0.1 + 19.9 / 49), 20 * 0.02], rtol=1e-12)
    path = save_checkpoint(net, tmp_path, {"num_heads": 3, "noise_schedule": "sigmoid"})
    with pytest.raises(CheckpointError, match=r"'noise_schedule' .* 'sigmoid'.* linear, squaredcos_cap_v2"):
        load_network(path)


def test_predicted_actions_may_come_from_the_ancestral_sampler():
    net = random_network("cogact", replace(SMALL, action_dim=7, history_dim=7, train_steps=10))
    generator = torch.Generator().manual_seed(3)
    token, noise, steps = (torch.randn(*shape, generator=generator) for shape in ((1, 1, 10), (1, 5, 7), (10, 1, 5, 7)))
    inputs = {"cognition_token": token, "noise": noise, "step_noise": steps}
    statistics = {"q01": [-1.0] * 7, "q99": [1.0] * 7, "mask": [True] * 6 + [False]}
    reference = Reference(Path(), {"config": {"action_statistics": statistics}}, {})
    case = {"name": "predict_action", "kind": "sample_unnormalized", "settings": {"cfg_scale": 1.5, "steps": 10}}
    with torch.no_grad():
        outputs = runner.run(net, case, inputs, reference)
        expected = net.sample(net.encode(token), noise, guidance_scale=1.5, step_noise=steps, ancestral=True)
        plain = net.sample(net.encode(token), noise, 10, 1.5)
    assert torch.equal(outputs["samples"], expected)
    assert not torch.allclose(expected, plain)
    assert_close(outputs["actions"][..., :6], expected[0, :, :6].clamp(-1, 1).double(), 1e-6)


def test_a_token_of_another_language_model_is_refused():
    with pytest.raises(PolicyError, match="11 wide, but this checkpoint takes 10"):
        random_network("cogact", SMALL).encode(torch.zeros(1, 1, 11))


@pytest.mark.parametrize("settings", [{"num_heads": 3}, {"vla": {"num_heads": 3}}])
def test_heads_come_from_the_settings(tmp_path, settings):
    net = random_network("cogact", SMALL)
    assert load_network(save_checkpoint(net, tmp_path, settings)).config == SMALL


def test_unknown_heads_are_asked_for(tmp_path):
    with pytest.raises(CheckpointError, match="num_heads"):
        load_network(save_checkpoint(random_network("cogact", SMALL), tmp_path))


@pytest.mark.parametrize(("width", "heads"), [(384, 4), (768, 12), (1024, 16)])
def test_released_sizes_need_no_settings(width, heads):
    shapes = {name: tuple(value.shape) for name, value in network("cogact").state_dict().items()}
    shapes["net.positional_embedding"] = (17, width)
    config = cogact.configure({}, shapes)
    assert (config.heads, config.horizon) == (heads, 16)
    assert cogact.configure({"action_model_type": "DiT-S"}, shapes).heads == 4


def test_released_files_hold_the_action_model_in_a_part(tmp_path):
    net = random_network("cogact", SMALL)
    net.vision_backbone = torch.nn.Linear(2, 2)
    path = save_checkpoint(net, tmp_path, {"num_heads": 3}, prefix="model.action_model.")
    with pytest.raises(CheckpointError, match=r"unexpected: vision_backbone\.bias"):
        load_network(path)
    del net.vision_backbone
    assert load_network(save_checkpoint(net, tmp_path, prefix="model.action_model.")).config == SMALL


def test_the_gripper_is_binary_and_unmasked_channels_stay():
    actions = np.array([[2.0, -2.0, 0.0, 0.0, 0.0, 0.0, 0.5], [0.5] * 6 + [0.49]])
    low, high = np.zeros(7), np.full(7, 10.0)
    mask = np.array([True, True, True, True, True, False, False])
    result, normalized = unnormalize(actions, low, high, mask)
    np.testing.assert_allclose(result[0], [10, 0, 5, 5, 5, 0, 1])
    np.testing.assert_allclose(result[1], [7.5, 7.5, 7.5, 7.5, 7.5, 0.5, 0])
    np.testing.assert_allclose(normalized[:, 6], [1, 0])
