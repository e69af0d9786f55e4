"""PAD and UWM, which denoise more than actions, against the formulas of their notes written out in numpy."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from family_checks import random_network
from slow import Weights, as_numpy, attention, gelu, gelu_tanh, mish, plain_norm, silu, sincos
from test_pad import OPTIONS as PAD_OPTIONS
from test_pad import POSED
from test_pad import example as pad_example
from test_uwm import SMALL as UWM
from test_uwm import example as uwm_example

from dit_policy_ros.policy.encoders.resnet import ResNet
from dit_policy_ros.policy.encoders.world_frames import RESNET, FramesConfig, WorldFrames
from dit_policy_ros.policy.modalities import ACTION, DEPTH, IMAGE, Part


def modulated(x, shift, scale):
    return plain_norm(x, 1e-6) * (1 + scale[:, None]) + shift[:, None]


def adaptive_block(w, name, x, condition, heads, activation, sees=None):
    vectors = np.split(w.linear(f"{name}.adaLN_modulation.1", silu(condition)), 6, axis=-1)
    q, k, v = np.split(w.linear(f"{name}.attn.qkv", modulated(x, *vectors[:2])), 3, axis=-1)
    x = x + vectors[2][:, None] * w.linear(f"{name}.attn.proj", attention(q, k, v, heads, sees))
    hidden = activation(w.linear(f"{name}.mlp.fc1", modulated(x, *vectors[3:5])))
    return x + vectors[5][:, None] * w.linear(f"{name}.mlp.fc2", hidden)


def patches(w, name, values, side):
    """(B, C, H, W) -> (B, P, D): one dot product with the kernel for each patch, rows first."""
    kernel, tokens = w[f"{name}.weight"], []
    for r in range(0, values.shape[2], side):
        for c in range(0, values.shape[3], side):
            tokens.append(np.einsum("bchw,dchw->bd", values[:, :, r : r + side, c : c + side], kernel))
    return np.stack(tokens, axis=1) + w[f"{name}.bias"]


def pictures(tokens, side, channels, rows, columns):
    """(B, P, side * side * channels) -> (B, channels, rows * side, columns * side)."""
    out = np.zeros((len(tokens), channels, rows * side, columns * side))
    for number in range(tokens.shape[1]):
        r, c = divmod(number, columns)
        patch = tokens[:, number].reshape(-1, side, side, channels).transpose(0, 3, 1, 2)
        out[:, :, r * side : (r + 1) * side, c * side : (c + 1) * side] = patch
    return out


def pad_network(w, c, known, x, t):
    text, latent, pose, depth = (as_numpy(known[i]) if i < len(known) else None for i in range(4))
    condition = w.linear(
        "t_embedder.mlp.2", silu(w.linear("t_embedder.mlp.0", sincos(t, c.time_width, c.time_width // 2, False)))
    )
    if c.text_width:
        condition = condition + w.linear("y_embedder.embedding_table", text)
    image = np.concatenate([as_numpy(x.latent), latent], axis=1)
    tokens = [patches(w, "x_embedder.proj", image, c.parts[0].patch) + w["pos_embed"]]
    part_of = {part.name: part for part in c.parts}
    if x.action is not None:
        action, posed = as_numpy(x.action), part_of[ACTION].inputs > part_of[ACTION].moving
        seen = np.concatenate([action, pose], -1) if posed else action
        tokens.append(w.linear("a_embedder", seen) + w["a_pos_embed"])
    if x.depth is not None:
        both = np.concatenate([as_numpy(x.depth), depth], axis=1)
        tokens.append(patches(w, "d_embedder.proj", both, part_of[DEPTH].patch) + w["d_pos_embed"])
    counts = [part.shape[1] for part in tokens]
    y = np.concatenate(tokens, axis=1)
    sees = (lambda _, i, j: i >= counts[0] or j < counts[0]) if c.image_apart else None
    for i in range(c.depth):
        y = adaptive_block(w, f"blocks.{i}", y, condition, c.heads, gelu_tanh, sees)
    outputs = []
    for part, piece in zip(c.parts, np.split(y, np.cumsum(counts)[:-1], axis=1), strict=True):
        vectors = np.split(w.linear(f"final_layer.{part.name}adaLN_modulation.1", silu(condition)), 2, axis=-1)
        out = w.linear(f"final_layer.{part.name}linear", modulated(piece, *vectors))
        if part.name != ACTION:
            size = x.of(part.name).shape[2:]
            out = pictures(out, part.patch, 2 * part.moving, size[0] // part.patch, size[1] // part.patch)
        outputs.append(out)
    return outputs


PAD = {
    **PAD_OPTIONS,
    "one latent frame": replace(
        POSED, parts=(Part(IMAGE, 12, 8, 2, 6), Part(ACTION, 13, 10, 1, 1), Part(DEPTH, 3, 2, 2, 24))
    ),
    "full attention": replace(POSED, image_apart=False),
}


@pytest.mark.parametrize("config", PAD.values(), ids=PAD)
def test_pad(config):
    net = random_network("pad", config)
    known, x = pad_example(config)
    t = torch.tensor([0, 480, 999])
    got = [value for value in net(net.encode(*known), x, t) if value is not None]
    for value, expected in zip(got, pad_network(Weights(net), config, known, x, as_numpy(t)), strict=True):
        np.testing.assert_allclose(value, expected, atol=2e-4, rtol=2e-4)


def uwm_network(w, c, condition, action, action_t, latents, latents_t):
    prefix = "noise_pred_net."
    features = [sincos(t, c.time_width, c.time_width // 2 - 1, True) for t in (action_t, latents_t)]
    proj = f"{prefix}timestep_embedding.proj"
    time = w.linear(f"{proj}.2", mish(w.linear(f"{proj}.0", np.concatenate(features, -1))))
    vector = np.concatenate([condition, time], axis=-1)
    tokens = [w.linear(f"{prefix}action_encoder.2", mish(w.linear(f"{prefix}action_encoder.0", action)))]
    kernel, (pt, ph, pw) = w[f"{prefix}obs_patchifier.patch_encoder.weight"], c.patch
    places = [
        (view, t, r, s)
        for view in range(latents.shape[1])
        for t in range(0, latents.shape[3], pt)
        for r in range(0, latents.shape[4], ph)
        for s in range(0, latents.shape[5], pw)
    ]
    cut = [latents[:, v, :, t : t + pt, r : r + ph, s : s + pw] for v, t, r, s in places]
    tokens.append(np.stack([np.einsum("bcthw,dcthw->bd", each, kernel) for each in cut], 1))
    tokens[1] += w[f"{prefix}obs_patchifier.patch_encoder.bias"]
    if f"{prefix}registers" in w:
        tokens.append(np.repeat(w[f"{prefix}registers"], len(action), axis=0))
    y = np.concatenate(tokens, axis=1) + w[f"{prefix}pos_embed"]
    for i in range(c.depth):
        y = adaptive_block(w, f"{prefix}blocks.{i}", y, vector, c.heads, gelu)
    shift, scale = np.split(w.linear(f"{prefix}head.adaLN_modulation.1", silu(vector)), 2, axis=-1)
    y = w.linear(f"{prefix}head.linear", modulated(y, shift, scale))
    steps = action.shape[1]
    decoded = w.linear(f"{prefix}action_decoder.2", mish(w.linear(f"{prefix}action_decoder.0", y[:, :steps])))
    out = np.zeros(latents.shape)
    for number, (v, t, r, s) in enumerate(places):
        patch = w.linear(f"{prefix}obs_patchifier.patch_decoder", y[:, steps + number])
        out[:, v, :, t : t + pt, r : r + ph, s : s + pw] = patch.reshape(-1, c.channels, pt, ph, pw)
    return decoded, out


@pytest.mark.parametrize("registers", [None, 1, 2])
@pytest.mark.parametrize("patch", [(1, 2, 3), (2, 4, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_uwm(registers, patch, bias):
    count = 2 * math.prod(size // side for size, side in zip((2, 4, 3), patch, strict=True))
    config = replace(UWM, registers=registers, patch=patch, qkv_bias=bias, tokens=4 + count + (registers or 0))
    net = random_network("uwm", config)
    condition, action, latents = uwm_example()
    t, other = torch.tensor([0, 50, 99]), torch.tensor([99, 3, 0])
    got = net(net.encode(condition), action, t, latents, other)
    expected = uwm_network(Weights(net), config, *map(as_numpy, (condition, action, t, latents, other)))
    for value, wanted in zip(got, expected, strict=True):
        np.testing.assert_allclose(value, wanted, atol=2e-4, rtol=2e-4)


def test_the_present_is_images_then_low_dimensional_values_then_language():
    torch.manual_seed(0)
    shapes = {f"{RESNET}conv1.weight": (16, 3, 7, 7), f"{RESNET}fc.weight": (5, 16), f"{RESNET}fc.bias": (5,)}
    for stage in range(1, 5):
        for conv in (1, 2):
            shapes[f"{RESNET}layer{stage}.0.conv{conv}.weight"] = (16, 16, 3, 3)
        shapes[f"{RESNET}layer{stage}.0.downsample.0.weight"] = (16, 16, 1, 1)
    frames = WorldFrames(FramesConfig(shapes, (6, 4), None, None, None)).eval().requires_grad_(False)
    views, low, text = torch.rand(2, 2, 3, 2, 16, 16), torch.randn(2, 2, 7), torch.randn(2, 6)
    vector = frames(views, low, text)
    assert isinstance(frames.img_encoder["model"], ResNet)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    rows = []
    for view in range(2):
        for time in range(2):
            image = (views[:, view, :, time].numpy() - mean[:, None, None]) / deviation[:, None, None]
            rows.append(frames.img_encoder["model"](torch.from_numpy(image).float()))
    w = Weights(frames)
    expected = np.concatenate(
        [*map(as_numpy, rows), as_numpy(low[:, 0]), as_numpy(low[:, 1]), w.linear("text_encoder.head", as_numpy(text))],
        axis=-1,
    )
    np.testing.assert_allclose(vector, expected, atol=1e-5)
