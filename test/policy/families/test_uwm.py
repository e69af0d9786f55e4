import copy
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

from dit_policy_ros.errors import CheckpointError, PolicyError
from dit_policy_ros.policy.encoders.world_frames import FramesConfig
from dit_policy_ros.policy.families import load_network, uwm

SMALL = uwm.UwmConfig(
    hidden=24,
    depth=2,
    heads=3,
    mlp_hidden=40,
    time_width=10,
    condition_width=9,
    action_dim=5,
    action_hidden=30,
    horizon=4,
    channels=3,
    patch=(1, 2, 3),
    registers=2,
    tokens=4 + 2 * 2 * 2 * 1 + 2,
    qkv_bias=True,
    frames=FramesConfig({}, (6, 4), 3, None, None),
)


def example(batch=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, 9), (batch, 4, 5), (batch, 2, 3, 2, 4, 3))
    return [torch.randn(*shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("name", case_names("uwm"))
def test_reference(name):
    check_case("uwm", name)


@pytest.mark.parametrize("name", [name for name, _ in network("uwm").named_parameters()])
def test_every_parameter_matters(name):
    net = copy.deepcopy(network("uwm"))
    data = net.get_parameter(name).data.flatten()
    # A bias on the keys drops out of the softmax: change one on the values, which are last.
    data[-1] += 0.5
    case = "denoise_mixed"
    if name.startswith("obs_encoder"):
        case = "encode_latents" if ".vae." in name else "encode_obs"
    assert not passes("uwm", case, net)


@pytest.mark.parametrize("mode", uwm.MODES)
@pytest.mark.parametrize("registers", [None, 2])
def test_the_batch_does_not_mix(mode, registers):
    config = replace(SMALL, registers=registers, tokens=SMALL.tokens - (0 if registers else 2), qkv_bias=False)
    net = random_network("uwm", config)
    condition, action, latents = example()
    together = net.sample(net.encode(condition), action, latents, mode, steps=4)
    for i in range(3):
        row = slice(i, i + 1)
        alone = net.sample(net.encode(condition[row]), action[row], latents[row], mode, steps=4)
        for part, expected in zip(together, alone, strict=True):
            assert_close(part[row], expected, 1e-4)


@pytest.mark.parametrize("mode", uwm.MODES)
def test_only_what_the_mode_samples_moves(mode):
    net = random_network("uwm", SMALL)
    condition, *start = example()
    result = net.sample(net.encode(condition), *start, mode=mode, steps=3)
    for role, before, after in zip(uwm.MODES[mode], start, result, strict=True):
        assert torch.equal(before, after) == (role != "sampled")


def test_patches_are_ordered_by_view_time_row_and_column():
    net = random_network("uwm", SMALL)
    _, _, latents = example()
    patchifier = net.noise_pred_net.obs_patchifier
    tokens = patchifier.encode(latents)
    assert tokens.shape == (3, 8, 24)
    changed = latents.clone()
    changed[:, 1, :, 0, 2:4] += 1.0  # view 1, time 0, row 1
    moved = (patchifier.encode(changed) - tokens).abs().amax((0, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == [1 * 4 + 0 * 2 + 1]
    assert patchifier.decode(tokens, latents.shape).shape == latents.shape


def test_a_step_projects_no_observation():
    net = random_network("uwm", SMALL)
    condition, action, latents = example()
    cache = net.encode(condition)
    with no_calls(*modules_named(net, "adaLN_modulation.1", "obs_encoder")):
        net.sample(cache, action, latents, "joint", steps=3)


def test_scaling_latents_is_undone():
    net, (_, _, latents) = random_network("uwm", SMALL), example()
    frames = net.obs_encoder
    x = latents[:, 0, :, 0]
    assert_close(frames.unscale_latents(frames.scale_latents(x)), x, 1e-4)


def test_images_are_resized_then_cropped_in_the_middle():
    frames = type(network("uwm").obs_encoder)(FramesConfig({}, None, None, (10, 8), (4, 6)))
    image = torch.zeros(1, 1, 10, 8, 3, dtype=torch.uint8)
    image[0, 0, 3:7, 1:7] = 255
    assert torch.equal(frames.transform(image), torch.ones(1, 3, 1, 4, 6))
    assert frames.transform(image.repeat(1, 1, 2, 2, 1)).shape == (1, 3, 1, 4, 6)


def test_sizes_come_from_the_parameters(tmp_path):
    net = random_network("uwm", SMALL)
    path = save_checkpoint(net, tmp_path, {"num_heads": 3, "action_len": 4}, prefix="model.")
    assert load_network(path).config == SMALL


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"num_heads": 7}, "7 attention heads"),
        ({"num_heads": 3, "obs_encoder": {"vision_backbone": "vit"}}, "only resnet is"),
    ],
)
def test_unknown_settings_are_refused(tmp_path, settings, text):
    with pytest.raises(CheckpointError, match=text):
        load_network(save_checkpoint(random_network("uwm", SMALL), tmp_path, settings))


def test_an_unknown_mode_names_the_known():
    net = random_network("uwm", SMALL)
    condition, action, latents = example()
    with pytest.raises(PolicyError, match="forward_dynamics"):
        net.sample(net.encode(condition), action, latents, "x")
