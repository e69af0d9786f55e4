import copy
import json
from dataclasses import replace

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
    reference,
    save_checkpoint,
)
from safetensors.torch import save_file

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.families import lerobot_multi_task_dit, load_network
from dit_policy_ros.policy.weights import read_tensors

VARIANTS = ("lerobot_multi_task_dit", "lerobot_multi_task_dit_abs")
variants = pytest.mark.parametrize("variant", VARIANTS)

SMALL = lerobot_multi_task_dit.MultiTaskDitConfig(
    hidden=24,
    depth=3,
    heads=3,
    mlp_hidden=40,
    time_width=10,
    condition_width=14,
    action_dim=5,
    horizon=7,
    text_widths=(6, 4),
    rotary_base=100.0,
    absolute_positions=True,
)


def example(batch=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 14, generator=generator), torch.randn(batch, 7, 5, generator=generator)


@pytest.mark.parametrize(("variant", "name"), [(v, name) for v in VARIANTS for name in case_names(v)])
def test_reference(variant, name):
    check_case(variant, name)


@pytest.mark.parametrize(
    ("variant", "name"), [(v, name) for v in VARIANTS for name, _ in network(v).noise_predictor.named_parameters()]
)
def test_every_parameter_matters(variant, name):
    net = copy.deepcopy(network(variant))
    width = net.config.hidden
    data = net.noise_predictor.get_parameter(name).data.flatten()
    # A bias on the keys drops out of the softmax: change one on the values, which are last.
    data[2 * width if data.numel() == 3 * width else 0] += 0.5
    assert not passes(variant, "denoise_middle_t", net)


def test_the_text_projection_matters():
    net = copy.deepcopy(network(VARIANTS[0]))
    net.observation_encoder["text_encoder"]["projection"].bias.data[0] += 0.1
    assert not passes(VARIANTS[0], "encode_conditioning", net)


@pytest.mark.parametrize("objective", ["diffusion", "flow_matching"])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("base", [None, 100.0])
def test_the_batch_does_not_mix(objective, absolute, base):
    net = random_network(
        VARIANTS[0], replace(SMALL, objective=objective, absolute_positions=absolute, rotary_base=base)
    )
    condition, noise = example()
    options = {"sampler": "euler" if objective == "flow_matching" else "ddim", "steps": 4}
    together = net.sample(net.encode(condition), noise, **options)
    for i in range(3):
        row = slice(i, i + 1)
        assert_close(together[row], net.sample(net.encode(condition[row]), noise[row], **options), 1e-4)


@pytest.mark.parametrize(("absolute", "base"), [(False, None), (True, None), (False, 100.0)])
def test_positions_are_told_apart_as_the_checkpoint_says(absolute, base):
    net = random_network(VARIANTS[0], replace(SMALL, absolute_positions=absolute, rotary_base=base))
    condition, noise = example()
    cache, order = net.encode(condition), torch.tensor([3, 0, 1, 2, 6, 5, 4])
    same = torch.allclose(net(cache, noise, 5)[:, order], net(cache, noise[:, order], 5), atol=1e-5)
    assert same == (not absolute and base is None)


def test_the_split_equals_one_product_with_the_joint_condition():
    net = random_network(VARIANTS[0], SMALL)
    condition, noise = example()
    block = net.noise_predictor.transformer_blocks[0]
    time = net.time_features(torch.full((3,), 9))
    slow = net.encode(condition).modulations[0]
    joint = block.adaLN_modulation(torch.cat([time, condition], dim=-1))
    tokens = net.noise_predictor.input_proj(noise)
    fast = lerobot_multi_task_dit.part_of(block.adaLN_modulation, time, 0, bias=False)
    assert_close(block(tokens, time, slow), lerobot_multi_task_dit.gated_block(tokens, joint, block.attn, block.mlp))
    assert_close(slow + fast, joint)


def test_a_step_projects_no_observation():
    net = random_network(VARIANTS[0], SMALL)
    condition, noise = example()
    cache = net.encode(condition)
    with no_calls(*modules_named(net, "adaLN_modulation.1", "projection")):
        net.sample(cache, noise, sampler="ddim", steps=3)


def test_padded_steps_have_no_influence_on_the_loss():
    net = random_network(VARIANTS[0], SMALL)
    condition, noise = example()
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[1, 4:] = True
    clean, t = torch.zeros_like(noise), torch.tensor([1, 50, 99])
    changed = noise.clone()
    cache = net.encode(condition)
    changed[1, 4:] = 3.0
    with_padding = [(net(cache, torch.zeros_like(noise), t) - n).square()[~padding].mean() for n in (noise, changed)]
    assert with_padding[0] == with_padding[1]
    assert net.loss(cache, clean, noise, t, padding) != net.loss(cache, clean, noise, t)
    nothing = torch.ones(3, 7, dtype=torch.bool)
    assert net.loss(cache, clean, noise, t, nothing) == 0


def test_flow_matching_starts_at_the_noise_and_aims_at_the_actions():
    net = random_network(VARIANTS[0], replace(SMALL, objective="flow_matching"))
    condition, noise = example()
    seen = []
    handle = net.register_forward_hook(lambda _, arguments, output: seen.append(arguments))
    net.loss(net.encode(condition), noise + 1, noise, torch.tensor([0.0, 0.5, 1.0]))
    handle.remove()
    assert_close(seen[0][1] - noise, torch.tensor([0.0, 0.5, 1.0])[:, None, None].expand_as(noise))


@variants
def test_weights_of_clip_in_the_same_file_are_left_out(tmp_path, variant):
    tensors = read_tensors(GOLDEN / variant / "weights.safetensors")
    foreign = ("vision_encoder.model.a", "vision_encoders.0.model.b", "text_encoder.text_encoder.c")
    extra = {f"observation_encoder.{name}": torch.zeros(1) for name in foreign}
    save_file({**tensors, **extra}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(reference(variant).data["config"]))
    assert load_network(tmp_path).config == network(variant).config
    save_file({**tensors, "observation_encoder.other": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"unexpected: observation_encoder\.other"):
        load_network(tmp_path)


def test_sizes_come_from_the_parameters(tmp_path):
    net = random_network(VARIANTS[0], SMALL)
    settings = {"num_heads": 3, "horizon": 7, "rope_base": 100.0}
    assert load_network(save_checkpoint(net, tmp_path, settings)).config == SMALL


@pytest.mark.parametrize(("heads", "text"), [(None, "num_heads"), (7, "7 attention heads do not divide the width 24")])
def test_heads_must_be_told(tmp_path, heads, text):
    settings = {"horizon": 7, **({"num_heads": heads} if heads else {})}
    with pytest.raises(CheckpointError, match=text):
        load_network(save_checkpoint(random_network(VARIANTS[0], SMALL), tmp_path, settings))


def test_an_observation_of_another_width_is_refused():
    net, given = network(VARIANTS[0]), inputs(VARIANTS[0], "encode_conditioning")
    with pytest.raises(PolicyError, match="Check the cameras"):
        net.conditioning(given["state"], given["camera_features"][:, :, :1], given["text_features"])


@pytest.mark.parametrize(
    ("changes", "text"), [({"objective": "x"}, "Objective 'x'"), ({"sampler": "rk4"}, "ddim, ddpm")]
)
def test_unknown_choices_name_the_known(changes, text):
    net = random_network(VARIANTS[0], SMALL)
    condition, noise = example()
    with pytest.raises(PolicyError, match=text):
        net.sample(net.encode(condition), noise, **changes)
